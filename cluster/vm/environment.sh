# What every shell of every node has: read by ~/.bashrc, which `ray up` reads before each command.
export PATH="$HOME/tunefleet/.venv/bin:$PATH"
# Nobody without the cluster's token reaches its scheduler, dashboard and jobs.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/.ray/auth_token"
# Ray's figures for Prometheus would be told to anybody, with or without a token: not collected,
# and at no port. A search has its own (TUNEFLEET_METRICS_PORT).
export RAY_enable_metrics_collection=0 AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1
export RAY_USAGE_STATS_ENABLED=0
# On the head, `launch.py run --engine ray` searches on the whole cluster.
if [ -e "$HOME/ray_bootstrap_config.yaml" ]; then
    export RAY_ADDRESS=auto
fi
