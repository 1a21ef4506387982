package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	idle     = 4 * time.Hour
	creation = 30 * time.Second
)

// serve answers the API server's calls for logs, exec and port-forward.
func (k *kubelet) serve() error {
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", fmt.Sprintf("%s:%d", k.o.address, k.o.port),
		// SPDY and WebSocket both begin as HTTP/1.1.
		&tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}})
	if err != nil {
		return err
	}
	routes := http.NewServeMux()
	routes.HandleFunc("/containerLogs/{namespace}/{pod}/{container}", k.logs)
	routes.HandleFunc("/exec/{namespace}/{pod}/{container}", k.exec)
	routes.HandleFunc("/portForward/{namespace}/{pod}", k.forward)
	go func() { log.Fatal(http.Serve(listener, routes)) }()
	return nil
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// named is the container that a call is about; nil, and answered, where there is none.
func (k *kubelet) named(w http.ResponseWriter, r *http.Request) *container {
	p := k.find(r.PathValue("namespace"), r.PathValue("pod"))
	if p == nil {
		http.Error(w, "no such pod here", http.StatusNotFound)
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.containers[r.PathValue("container")]
	if c == nil {
		http.Error(w, fmt.Sprintf("container %q in pod %q is waiting to start: %s",
			r.PathValue("container"), p.object.Name, p.waiting), http.StatusBadRequest)
	}
	return c
}

func (k *kubelet) logs(w http.ResponseWriter, r *http.Request) {
	c := k.named(w, r)
	if c == nil {
		return
	}
	file, err := os.Open(c.logPath())
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer file.Close()
	if lines, err := strconv.Atoi(r.URL.Query().Get("tailLines")); err == nil {
		skipTo(file, lines)
	}
	w.Header().Set("Transfer-Encoding", "chunked")
	w.WriteHeader(http.StatusOK)
	follow := r.URL.Query().Get("follow") == "true"
	for {
		// Asked before the file is read, so that the last words are not missed.
		ended := c.hasEnded()
		if _, err := io.Copy(w, file); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		if !follow || ended || r.Context().Err() != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// skipTo goes on to the last lines of a file.
func skipTo(file *os.File, lines int) {
	content, err := io.ReadAll(file)
	if err != nil {
		return
	}
	at := len(content)
	for seen := 0; at > 0; at-- {
		if content[at-1] == '\n' && at < len(content) {
			if seen++; seen == lines {
				break
			}
		}
	}
	_, _ = file.Seek(int64(at), io.SeekStart)
}

func (k *kubelet) exec(w http.ResponseWriter, r *http.Request) {
	c := k.named(w, r)
	if c == nil {
		return
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, c, c.pod.object.Name, string(c.pod.object.UID), c.spec.Name,
		r.URL.Query()["command"], options, idle, creation, remotecommand.SupportedStreamingProtocols)
}

// ExecInContainer runs a command beside the container's own process.
func (c *container) ExecInContainer(ctx context.Context, _, _, _ string, words []string, in io.Reader,
	out, said io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	if c.hasEnded() {
		return fmt.Errorf("container %s has ended", c.spec.Name)
	}
	nsenter := []string{"--target", fmt.Sprint(c.command.Process.Pid), "--mount", "--net", "--pid", "--uts",
		"--ipc", "--root", "--wd", "--setuid", fmt.Sprint(c.made.User), "--setgid", fmt.Sprint(c.made.Group), "--"}
	command := exec.CommandContext(ctx, "nsenter", append(nsenter, words...)...)
	command.Env = c.made.Environment
	command.Stdin, command.Stdout, command.Stderr = in, out, said
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	// What was started in the background may hold the output open.
	command.WaitDelay = time.Second
	err := command.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		code := ended.ExitCode()
		if status := ended.Sys().(syscall.WaitStatus); status.Signaled() {
			code = 128 + int(status.Signal())
		}
		// Its container may have ended just before it could join, or taken it along.
		select {
		case <-c.done:
			code = 128 + int(syscall.SIGKILL)
		case <-time.After(200 * time.Millisecond):
		}
		return utilexec.CodeExitError{Err: err, Code: code}
	}
	return err
}

func (k *kubelet) forward(w http.ResponseWriter, r *http.Request) {
	p := k.find(r.PathValue("namespace"), r.PathValue("pod"))
	if p == nil {
		http.Error(w, "no such pod here", http.StatusNotFound)
		return
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, p, p.object.Name, string(p.object.UID), options, idle, creation,
		portforward.SupportedProtocols)
}

// PortForward joins a stream to a port of the pod's loopback.
func (p *pod) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	var to net.Conn
	err := inNetwork(p.network, func() (err error) {
		to, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		return err
	})
	if err != nil {
		return err
	}
	defer to.Close()
	done := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(to, stream); done <- struct{}{} }()
	go func() { _, _ = io.Copy(stream, to); done <- struct{}{} }()
	<-done
	return nil
}
