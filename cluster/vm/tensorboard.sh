#!/bin/sh
# TensorBoard over all runs of the head, at loopback's port 6006, as long as Ray is there.
mkdir -p "$HOME/runs"
tensorboard --logdir "$HOME/runs" --host 127.0.0.1 --port 6006 &
while pidof raylet >/dev/null; do
    sleep 5
done
kill $!
