// Package rpc is the API of a server: its messages, its handlers and its client.
package rpc
