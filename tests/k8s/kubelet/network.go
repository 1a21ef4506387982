package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// makeNetwork makes a network namespace with an address on the bridge; it answers its name.
func makeNetwork(o *options, uid types.UID, address string) (string, error) {
	network := "tfpod-" + string(uid)[:13]
	port := "tf" + strings.ReplaceAll(string(uid), "-", "")[:12]
	for _, words := range [][]string{
		{"netns", "add", network},
		{"link", "add", "eth0", "netns", network, "type", "veth", "peer", "name", port},
		{"link", "set", port, "master", o.bridge, "up"},
		{"-n", network, "address", "add", address + "/16", "dev", "eth0"},
		{"-n", network, "link", "set", "lo", "up"},
		{"-n", network, "link", "set", "eth0", "up"},
	} {
		if out, err := exec.Command("ip", words...).CombinedOutput(); err != nil {
			removeNetwork(network)
			return "", fmt.Errorf("ip %s: %s", strings.Join(words, " "), out)
		}
	}
	return network, nil
}

func removeNetwork(network string) {
	if network != "" {
		_ = exec.Command("ip", "netns", "delete", network).Run()
	}
}

func setns(file *os.File) error {
	return unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
}
