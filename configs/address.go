package configs

import (
	"errors"
	"fmt"
	"net"
	"strconv"
)

// ErrNotLoopback is what [CheckLoopback] wraps for an address that other hosts could reach.
var ErrNotLoopback = errors.New("not a loopback address: lift cannot yet tell friend from stranger on a network, so " +
	"until its processes authenticate each other every address must be loopback, such as 127.0.0.1:0")

// CheckLoopback tells whether addr is host:port on this host's loopback interface. The host is a number or "localhost":
// no name is looked up.
func CheckLoopback(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not host:port, such as 127.0.0.1:0", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("%q: the port must be a number from 0 to 65535", addr)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%q is %w", addr, ErrNotLoopback)
	}
	return nil
}
