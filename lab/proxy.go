package lab

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Proxy stands between some clients and the API server. It passes bytes on, and
// so leaves TLS alone, but it can take its time or stop.
type Proxy struct {
	lab      *Lab
	listener net.Listener
	to       string
	file     string // kubeconfig
	delay    atomic.Int64
	cut      atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

// Proxy starts a proxy in front of the API server for as long as the test runs.
// Only clients that are told to use it do, by Config or Kubeconfig.
func (l *Lab) Proxy(t testing.TB) *Proxy {
	t.Helper()
	s, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{lab: l, to: s.Server[len("https://"):], conns: map[net.Conn]bool{}, file: filepath.Join(t.TempDir(), "kubeconfig")}
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal("start a proxy:", err)
	}
	if err := p.writeKubeconfig(); err != nil {
		t.Fatal("start a proxy:", err)
	}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.listener.Close()
		p.closeAll()
		p.wg.Wait()
	})
	return p
}

// Slow makes everything that is sent, either way, arrive so much later. A
// request costs it twice, and a new connection twice more for TCP and TLS. What
// is on its way keeps its time.
func (p *Proxy) Slow(delay time.Duration) { p.delay.Store(int64(delay)) }

// Cut breaks all connections and refuses new ones, until it is called with false.
func (p *Proxy) Cut(cut bool) {
	p.cut.Store(cut)
	if cut {
		p.closeAll()
	}
}

// Config is the administrator's, through the proxy.
func (p *Proxy) Config() *rest.Config {
	c := p.lab.Config()
	c.Host, c.ServerName = "https://"+p.listener.Addr().String(), "localhost"
	return c
}

// Kubeconfig is the path of a kubeconfig that says the same.
func (p *Proxy) Kubeconfig() string { return p.file }

func (p *Proxy) writeKubeconfig() error {
	config, err := clientcmd.LoadFromFile(p.lab.Kubeconfig())
	if err != nil {
		return err
	}
	for _, cluster := range config.Clusters {
		cluster.Server, cluster.TLSServerName = "https://"+p.listener.Addr().String(), "localhost"
	}
	return writeKubeconfig(p.file, config)
}

func writeKubeconfig(path string, config *api.Config) error {
	text, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		if p.cut.Load() || !p.pass(conn) {
			reset(conn)
		}
	}
}

// reset closes a connection in the way that tells its client at once.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}

func (p *Proxy) pass(conn net.Conn) bool {
	server, err := net.DialTimeout("tcp", p.to, 5*time.Second)
	if err != nil {
		return false
	}
	p.mu.Lock()
	p.conns[conn], p.conns[server] = true, true
	p.mu.Unlock()
	for _, way := range [][2]net.Conn{{server, conn}, {conn, server}} {
		p.wg.Go(func() {
			p.copy(way[0], way[1])
			// One way that ends is the end of both: HTTP has no use for half of a connection.
			for _, c := range way {
				c.Close()
				p.mu.Lock()
				delete(p.conns, c)
				p.mu.Unlock()
			}
		})
	}
	return true
}

func (p *Proxy) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		reset(conn)
	}
}

// piece is what was read at once, to be written at its time.
type piece struct {
	data []byte
	due  time.Time
}

// maxPieces bounds what is on its way: 32 KiB each.
const maxPieces = 256

// copy is io.Copy with a delay that does not limit the rate.
func (p *Proxy) copy(dst io.Writer, src io.Reader) {
	pieces := make(chan piece, maxPieces)
	var writer sync.WaitGroup
	writer.Go(func() {
		for piece := range pieces {
			if wait := time.Until(piece.due); wait > 0 {
				<-time.After(wait)
			}
			if _, err := dst.Write(piece.data); err != nil {
				break
			}
		}
		for range pieces { // so that the reader never waits for us
		}
	})
	for {
		buf := make([]byte, 32<<10)
		n, err := src.Read(buf)
		if n > 0 {
			pieces <- piece{buf[:n], time.Now().Add(time.Duration(p.delay.Load()))}
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	writer.Wait()
}
