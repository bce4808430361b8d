package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"bulkhead.dev/bulkhead/lab"
)

// serve takes requests on the lab's socket: of tests, and of the commands for
// people. Only the owner of the folder can reach it.
func (s *supervisor) serve(ctx context.Context) error {
	started := make(chan error, 1)
	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	go func() { started <- s.startAll(starting, controlPlane) }()

	down := make(chan struct{})
	end := sync.OnceFunc(func() { close(down) })
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(s.status()) // who asked is gone, or not
	})
	mux.HandleFunc("POST /ready", answer(func(r *http.Request) error {
		select {
		case err := <-started:
			started <- err
			return err
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}))
	mux.HandleFunc("POST /node", answer(func(r *http.Request) error { return s.addNode(r.Context()) }))
	mux.HandleFunc("POST /fake", answer(func(r *http.Request) error { return s.addFake(r.Context()) }))
	mux.HandleFunc("POST /stop/{name}", answer(func(r *http.Request) error {
		return s.stop(r.PathValue("name"), r.FormValue("hard") != "")
	}))
	mux.HandleFunc("POST /start/{name}", answer(func(r *http.Request) error {
		return s.restart(r.Context(), r.PathValue("name"), r.Form["arg"])
	}))
	mux.HandleFunc("POST /link/{state}", answer(func(r *http.Request) error { return s.setLink(r.PathValue("state")) }))
	mux.HandleFunc("POST /import", answer(func(r *http.Request) error { return s.importImage(r.FormValue("image")) }))
	mux.HandleFunc("POST /down", answer(func(*http.Request) error { end(); return nil }))

	listener, err := s.listen()
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	case <-down:
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		return server.Shutdown(grace) // so that who asked gets an answer
	}
}

// listen makes the socket under another name first: where it is found, the
// kubeconfig is there too and it can be connected to.
func (s *supervisor) listen() (net.Listener, error) {
	path := s.path(lab.SocketFile)
	listener, err := net.Listen("unix", path+".new")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chmod(path+".new", 0o600), os.Rename(path+".new", path)); err != nil {
		return nil, err
	}
	return listener, nil
}

func answer(do func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := r.ParseForm()
		if err == nil {
			err = do(r)
		}
		if err == nil {
			return
		}
		http.Error(w, err.Error(), http.StatusConflict)
	}
}
