package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// codes are what the codes of a bulkhead.Error are on the wire.
var codes = map[string]connect.Code{
	bulkhead.CodeUsage:       connect.CodeInvalidArgument,
	bulkhead.CodeNotFound:    connect.CodeNotFound,
	bulkhead.CodeConflict:    connect.CodeFailedPrecondition,
	bulkhead.CodeDenied:      connect.CodePermissionDenied,
	bulkhead.CodeUnavailable: connect.CodeUnavailable,
	bulkhead.CodeInternal:    connect.CodeInternal,
}

// Fault makes of an error what a handler returns: the code, message and hint of
// the bulkhead.Error in its chain, so that the client can say the same.
func Fault(err error) error {
	if err == nil {
		return nil
	}
	if wire, ok := errors.AsType[*connect.Error](err); ok {
		return wire // somebody has decided already
	}
	if cause := contextual(err); cause != 0 {
		return connect.NewError(cause, err)
	}
	return fault(codes[bulkhead.CodeOf(err)], err)
}

// fault is an error with its Fault as the detail.
func fault(code connect.Code, err error) *connect.Error {
	if code == 0 {
		code = connect.CodeInternal
	}
	e := connect.NewError(code, errors.New(text(err.Error())))
	m := &bulkheadv1.Fault{Code: text(bulkhead.CodeOf(err)), Hint: text(bulkhead.HintOf(err))}
	// It fails only for a message that cannot be marshalled, and this one can.
	if d, derr := connect.NewErrorDetail(m); derr == nil {
		e.AddDetail(d)
	}
	return e
}

// contextual is the code of an error that only says that the caller has gone or
// did not want to wait longer, and 0 for any other.
func contextual(err error) connect.Code {
	if _, ok := errors.AsType[*bulkhead.Error](err); ok {
		return 0
	}
	switch {
	case errors.Is(err, context.Canceled):
		return connect.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return connect.CodeDeadlineExceeded
	}
	return 0
}

// faultOf is the detail of an error that a Bulkhead server has answered with;
// nil for what went wrong on the way.
func faultOf(err error) *bulkheadv1.Fault {
	wire, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return nil
	}
	for _, d := range wire.Details() {
		if m, err := d.Value(); err == nil {
			if f, ok := m.(*bulkheadv1.Fault); ok {
				return f
			}
		}
	}
	return nil
}

// Error makes of an error that a call to server (its URL) returned what a person
// can be told: the same bulkhead.Error that the handler had, or one that says
// what went wrong on the way. An error of ctx stays one.
func Error(server string, err error) error {
	wire, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return err
	}
	if f := faultOf(wire); f != nil {
		code := f.GetCode()
		if _, known := codes[code]; !known {
			code = bulkhead.CodeInternal
		}
		return &bulkhead.Error{Code: code, Message: wire.Message(), Hint: f.GetHint()}
	}
	if own, ok := errors.AsType[*bulkhead.Error](err); ok {
		return own // of this side: a token that cannot be read
	}
	internal := func(message, hint string) error {
		return &bulkhead.Error{Code: bulkhead.CodeInternal, Message: message, Hint: hint}
	}
	switch wire.Code() {
	case connect.CodeCanceled:
		if errors.Is(err, context.Canceled) {
			return context.Canceled
		}
	case connect.CodeDeadlineExceeded:
		return internal(fmt.Sprintf("server %s did not answer in time", server), "is it overloaded, or the network in between?")
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("server %s does not accept the token", server),
			Hint: "whoever runs the server has the token; `bulkhead context add` stores it"}
	case connect.CodeUnimplemented:
		return internal(fmt.Sprintf("server %s does not know this call (%s)", server, wire.Message()),
			"is it a Bulkhead server, and of the same version?")
	case connect.CodeUnavailable:
		return away(server, err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return internal(fmt.Sprintf("the connection to server %s broke", server), "")
	}
	hint := ""
	if strings.HasPrefix(server, "http:") {
		hint = "does it want https?" // Go answers HTTP on a port of TLS with 400
	}
	return internal(fmt.Sprintf("server %s: %s", server, wire.Message()), hint)
}

// away says why a server cannot be reached.
func away(server string, err error) error {
	e := &bulkhead.Error{Code: bulkhead.CodeInternal, Message: fmt.Sprintf("cannot reach server %s: %s", server, reason(err)),
		Hint: "is it running, and is that its address?"}
	switch {
	case untrusted(err):
		e.Message = fmt.Sprintf("cannot trust server %s: %s", server, reason(err))
		e.Hint = "give the certificate authority that signed its certificate: --ca FILE, here or in `bulkhead context add`"
	case notTLS(err):
		e.Message, e.Hint = fmt.Sprintf("server %s does not speak TLS there: %s", server, reason(err)), "is the port right?"
	}
	return e
}

// reason is the innermost of what went wrong on the way: the layers above it
// repeat the address.
func reason(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		return op.Err.Error()
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert.Err.Error()
	}
	if wire, ok := errors.AsType[*connect.Error](err); ok {
		return wire.Message()
	}
	return err.Error()
}

func untrusted(err error) bool {
	_, verification := errors.AsType[*tls.CertificateVerificationError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	return verification || authority || host
}

func notTLS(err error) bool {
	_, header := errors.AsType[tls.RecordHeaderError](err)
	return header || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// transient reports whether the same call may succeed in a moment: the server is
// away or busy, or the connection broke. It is false for what the server has
// decided, and for what no wait will change.
func transient(err error) bool {
	wire, ok := errors.AsType[*connect.Error](err)
	_, own := errors.AsType[*bulkhead.Error](err)
	if !ok || own || untrusted(err) || notTLS(err) {
		return false
	}
	if faultOf(wire) != nil {
		return wire.Code() == connect.CodeUnavailable || wire.Code() == connect.CodeResourceExhausted
	}
	switch wire.Code() {
	case connect.CodeUnavailable, connect.CodeInternal, connect.CodeUnknown, connect.CodeCanceled,
		connect.CodeDeadlineExceeded, connect.CodeAborted, connect.CodeDataLoss:
		return true
	}
	return false
}

// unsent reports whether a call cannot have reached the server.
func unsent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}
