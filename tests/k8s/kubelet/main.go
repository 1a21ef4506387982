// A small kubelet for tests: it registers a node and runs the containers of the pods that are
// bound to it as processes of this machine. Each container has its own mounts, process ids and
// a root of its own that shows this machine's programs read-only; each pod has its own network.
// What it takes from a pod is real: commands, variables, volumes, users, grace periods,
// containers that run beside others, logs, exec and port-forward. Images are not: those it is
// told of are this machine's own files, any other cannot be pulled. A node of paper takes pods in
// numbers that no machine here could run.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

type options struct {
	kubeconfig, name, folder, bridge, address, subnet string
	port, gpus, pods                                  int
	paper                                             bool
	labels, taints, images, binds, variables          list
	entrypoint, workdir                               string
}

// list is an option that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	if len(os.Args) == 3 && os.Args[1] == "container" {
		becomeContainer(os.Args[2])
	}
	var o options
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server")
	flag.StringVar(&o.name, "node", "", "the node's name")
	flag.StringVar(&o.folder, "folder", "", "where volumes and logs lie")
	flag.StringVar(&o.bridge, "bridge", "", "the bridge that pods are plugged into")
	flag.StringVar(&o.address, "address", "", "the bridge's address, which is the node's too")
	flag.StringVar(&o.subnet, "subnet", "", "the first three numbers of the pods' addresses")
	flag.IntVar(&o.port, "port", 0, "where logs, exec and port-forward are served")
	flag.IntVar(&o.gpus, "gpus", 0, "how many nvidia.com/gpu the node has")
	flag.IntVar(&o.pods, "pods", 100, "how many pods the node takes")
	flag.BoolVar(&o.paper, "paper", false, "say of every pod that it runs, and start nothing")
	flag.Var(&o.labels, "label", "NAME=VALUE")
	flag.Var(&o.taints, "taint", "NAME=VALUE:EFFECT")
	flag.Var(&o.images, "image", "an image that there is")
	flag.Var(&o.binds, "bind", "FROM[:TO]: what the images show of this machine besides its system")
	flag.Var(&o.variables, "variable", "NAME=VALUE of every image")
	flag.StringVar(&o.entrypoint, "entrypoint", "", "of every image")
	flag.StringVar(&o.workdir, "workdir", "/", "of every image")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	config.QPS, config.Burst = 500, 1000
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	k := newKubelet(&o, client)
	if err := k.serve(); err != nil {
		log.Fatal(err)
	}
	if err := k.register(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("serving", o.name)
	k.watch(ctx)
	k.endAll()
}
