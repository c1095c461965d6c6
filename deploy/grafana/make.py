#!/usr/bin/env python3
"""Makes the dashboards: dashboards/*.json. What they show stands here; Grafana's form of it is made.

    deploy/grafana/make.py            writes them
    deploy/grafana/make.py --check    fails if what is checked in is something else
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Of the network that was chosen. Nodes have one each, so that theirs have no such label.
N = 'network=~"$network"'


def rate(metric, labels=N):
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def quantile(share, metric, by="", labels=N):
    by = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({by}) ({rate(metric + '_bucket', labels)}))"


def stage(title, description, metric, labels=N):
    """The median and the slowest hundredth of a stage."""
    queries = [(quantile(share, metric, labels=labels), f"p{round(share * 100)}") for share in (0.5, 0.99)]
    return title, description, "s", queries


def labelled(name, value, how="="):
    return f'{N}, {name}{how}"{value}"'


def or_zero(expression):
    """A counter begins to exist with its first event; until then there were none."""
    return f"{expression} or vector(0)"


DASHBOARDS = {
    "service": ("Service", "What callers see: how many requests, how many fail, how long they take, by route.", [
        ("Requests", "Requests a second, by route.", "reqps",
         [(f"sum by (route) ({rate('chopmark_gateway_requests_total')})", "{{route}}")]),
        ("Errors of ours", "Share of requests that end with a status of 500 and above.", "percentunit",
         [(f"(sum(rate(chopmark_gateway_requests_total{{{N}, status=~\"5..\"}}[$__rate_interval])) or vector(0)) / "
           f"sum({rate('chopmark_gateway_requests_total')})", "errors")]),
        ("Answers", "Answers a second, by status.", "reqps",
         [(f"sum by (status) ({rate('chopmark_gateway_requests_total')})", "{{status}}")]),
        ("Problems", "Problems a second, by code: why callers are refused.", "reqps",
         [(or_zero(f"sum by (code) ({rate('chopmark_gateway_problems_total')})"), "{{code}}")]),
        ("Duration, slowest hundredth", "99 of 100 requests take no longer, by route.", "s",
         [(quantile(0.99, "chopmark_gateway_request_seconds", "route"), "{{route}}")]),
        ("Duration, median", "Half of the requests take no longer, by route.", "s",
         [(quantile(0.5, "chopmark_gateway_request_seconds", "route"), "{{route}}")]),
    ]),
    "pipeline": ("Pipeline", "The way of an operation: accepted, queued, submitted, decided, cosigned, projected, delivered.", [
        ("Stages", "Operations a second at each stage. They are the same where nothing waits.", "ops", [
            (f"sum({rate('chopmark_gateway_writes_total', labelled('result', 'accepted'))})", "accepted"),
            (f"sum({rate('chopmark_queue_published_total')})", "queued"),
            (f"sum({rate('chopmark_committer_submitted_total')})", "submitted"),
            ("max(rate(chopmark_node_operations_total[$__rate_interval]))", "decided"),
            (f"sum({rate('chopmark_committer_projected_total')})", "projected"),
        ]),
        ("Waiting", "Operations that are accepted and not submitted, and those under way.", "short", [
            (f"sum(chopmark_committer_queue_lag{{{N}}})", "in the queue"),
            (f"sum(chopmark_committer_in_flight{{{N}}})", "under way"),
        ]),
        stage("Queued", "From a request to its durable place in the queue.", "chopmark_queue_append_seconds"),
        stage("Waited", "From the queue to a committer.", "chopmark_queue_waited_seconds"),
        stage("Decided", "From submission to outcome.", "chopmark_committer_ledger_seconds"),
        ("Cosigned", "From a block's time to its checkpoint with a quorum of cosignatures.", "s",
         [("histogram_quantile(0.5, sum by (le) (rate(chopmark_node_cosigned_seconds_bucket[$__rate_interval])))", "p50"),
          ("histogram_quantile(0.99, sum by (le) (rate(chopmark_node_cosigned_seconds_bucket[$__rate_interval])))", "p99")]),
        stage("Projected", "From a block's time to the database.", "chopmark_committer_projected_seconds"),
        stage("Delivered", "From an event to its webhook's arrival.", "chopmark_courier_delivered_seconds"),
        ("Rejected", "Operations a second that the ledger refused, by code.", "ops",
         [(or_zero(f"sum by (code) ({rate('chopmark_committer_rejected_total')})"), "{{code}}")]),
        ("Behind", "Blocks that are signed and not in the database yet.", "short",
         [(f"max by (network) (chopmark_committer_checkpoint_height{{{N}}}) - max by (network) (chopmark_committer_projected_height{{{N}}})", "{{network}}")]),
        ("Put aside", "Messages in the last hour that could not be processed, by reason.", "short",
         [(or_zero(f"sum by (reason) (increase(chopmark_committer_dead_lettered_total{{{N}}}[1h]))"), "{{reason}}")]),
        ("Tried again", "Calls a second that are tried again because a dependency failed, by port.", "ops",
         [(or_zero(f"sum by (port) ({rate('chopmark_committer_retries_total')})"), "{{port}}")]),
    ]),
    "consortium": ("Consortium", "The members' nodes: who decides, who signs, who is behind.", [
        ("Height", "Newest block of each node.", "short", [("chopmark_node_height", "{{instance}}")]),
        ("Blocks", "Blocks a second, by node.", "ops", [("rate(chopmark_node_blocks_total[$__rate_interval])", "{{instance}}")]),
        ("Voting", "1: the node votes. 0: its log and `chopmark network status` say why not.", "short",
         [("chopmark_node_votes", "{{instance}}")]),
        ("Rounds for a block", "Rounds that a block took; 1 where nobody was late.", "short",
         [("rate(chopmark_node_rounds_total[$__rate_interval]) / rate(chopmark_node_blocks_total[$__rate_interval]) or chopmark_node_round * 0 + 1", "{{instance}}")]),
        ("Entries without a member's cosignature", "How far the newest cosignature of each member is behind, in entries, as its nearest node sees it.", "short",
         [("scalar(max(chopmark_node_tree_size)) - max by (member) (chopmark_node_cosigned_size)", "{{member}}")]),
        ("Age of cosignatures", "Time since each member's newest cosignature. It grows for all of them while nothing is recorded.", "s",
         [("time() - max by (member) (chopmark_node_cosigned_timestamp_seconds)", "{{member}}")]),
        ("Clocks", "This node's clock beside the median of the others'.", "ms",
         [("chopmark_node_clock_offset_ms or chopmark_node_votes * 0", "{{instance}}")]),
        ("Blocks made durable", "One append with its sync, slowest hundredth.", "s",
         [("histogram_quantile(0.99, sum by (le, instance) (rate(chopmark_node_commit_seconds_bucket[$__rate_interval])))", "{{instance}}")]),
        ("Equivocations", "Two different things that one key signed. Anything but 0 is an alarm.", "short",
         [(or_zero("sum by (member) (chopmark_node_equivocations_total)"), "{{member}}")]),
        ("Damaged parts", "Stored parts that do not lead to the root, and have not healed.", "short",
         [("chopmark_node_damaged_parts", "{{instance}}")]),
        ("Proposals refused", "Proposals of others in the last hour that this node did not vote for.", "short",
         [(or_zero("sum by (instance) (increase(chopmark_node_proposals_refused_total[1h]))"), "{{instance}}")]),
        ("Peers met anew", "Connections in the last hour that had died unnoticed.", "short",
         [(or_zero("sum by (instance) (increase(chopmark_node_peers_met_anew_total[1h]))"), "{{instance}}")]),
    ]),
    "tenants": ("Tenants", "Who writes how much, who is refused, and whether webhooks arrive.", [
        ("Writes", "Writes a second that were accepted, by tenant.", "ops",
         [(f"sum by (tenant) ({rate('chopmark_gateway_writes_total', labelled('result', 'accepted'))})", "{{tenant}}")]),
        ("Over the quota", "Writes a second that the daily quota refused, by tenant.", "ops",
         [(or_zero(f"sum by (tenant) ({rate('chopmark_gateway_writes_total', labelled('result', 'refused_quota'))})"), "{{tenant}}")]),
        ("Over the rate", "Requests a second that a rate limit refused.", "reqps",
         [(or_zero(f"sum({rate('chopmark_gateway_problems_total', labelled('code', 'rate_limited'))})"), "refused")]),
        ("Refused keys", "Requests a second whose API key was refused, by code.", "reqps",
         [(or_zero(f"sum by (code) ({rate('chopmark_gateway_problems_total', labelled('code', 'api_key_.*', '=~'))})"), "{{code}}")]),
        ("Webhook attempts", "Attempts a second, by result.", "ops",
         [(f"sum by (result) ({rate('chopmark_courier_attempts_total')})", "{{result}}")]),
        ("Webhook backlog", "Deliveries that are pending.", "short", [(f"max by (network) (chopmark_courier_backlog{{{N}}})", "{{network}}")]),
        ("Oldest webhook", "Age of the oldest pending delivery.", "s", [(f"max by (network) (chopmark_courier_oldest_seconds{{{N}}})", "{{network}}")]),
        ("Webhooks given up", "Deliveries in the last hour that were given up.", "short",
         [(or_zero(f"sum(increase(chopmark_courier_dead_lettered_total{{{N}}}[1h]))"), "given up")]),
        ("Endpoints", "Webhook endpoints, by state.", "short",
         [(f"max by (state) (chopmark_courier_endpoints{{{N}}})", "{{state}}")]),
    ]),
    "infrastructure": ("Infrastructure", "Processes, disks and what they depend on.", [
        ("Up", "1: the process answered the last scrape.", "short", [('up{job="chopmark"}', "{{role}} {{instance}}")]),
        ("Dependencies", "1: the last call succeeded.", "short", [
            (f"chopmark_gateway_dependency_up{{{N}}}", "gateway {{instance}}: {{dependency}}"),
            (f"chopmark_committer_dependency_up{{{N}}}", "committer {{instance}}: {{dependency}}"),
            (f"chopmark_courier_dependency_up{{{N}}}", "courier {{instance}}: {{dependency}}"),
        ]),
        ("Syncs", "One sync of a file to the disk, slowest hundredth, by node.", "s",
         [("histogram_quantile(0.99, sum by (le, instance) (rate(chopmark_node_fsync_seconds_bucket[$__rate_interval])))", "{{instance}}")]),
        ("Disk", "Share of the disk that is free, by folder.", "percentunit",
         [("chopmark_disk_free_bytes / chopmark_disk_size_bytes", "{{instance}} {{folder}}")]),
        ("Memory", "Resident memory.", "bytes", [('process_resident_memory_bytes{job="chopmark"}', "{{role}} {{instance}}")]),
        ("Processor", "Cores in use.", "short", [('rate(process_cpu_seconds_total{job="chopmark"}[$__rate_interval])', "{{role}} {{instance}}")]),
        ("Open files", "Share of the files that the process may open.", "percentunit",
         [('process_open_fds{job="chopmark"} / process_max_fds{job="chopmark"}', "{{role}} {{instance}}")]),
        ("Running since", "Time since the process started.", "s",
         [('time() - process_start_time_seconds{job="chopmark"}', "{{role}} {{instance}}")]),
        ("Versions", "Processes of each version.", "short", [("count by (version, role) (chopmark_build_info)", "{{version}} {{role}}")]),
        ("Shares of the queue", "Partitions that each committer reads.", "short",
         [(f"chopmark_queue_partitions{{{N}}}", "{{instance}}")]),
        ("Cache", "Calls a second of the cache that failed. Nobody waits for it, and nothing is lost.", "ops",
         [(or_zero("sum by (instance) (rate(chopmark_cache_failures_total[$__rate_interval]))"), "{{instance}}")]),
        ("Queue failures", "Publications a second that failed, by cause.", "ops",
         [(or_zero(f"sum by (cause) ({rate('chopmark_queue_failures_total')})"), "{{cause}}")]),
    ]),
}


def panel(number, title, description, unit, queries):
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0 if unit != "ms" else None}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for at, (expression, legend) in enumerate(queries)
        ],
    }


def variable(kind, name, query, **more):
    return {"type": kind, "name": name, "label": name, "query": query, "refresh": 1, **more}


def dashboard(name, title, description, panels):
    variables = [variable("datasource", "datasource", "prometheus")]
    if any("$network" in expression for *_, queries in panels for expression, _ in queries):
        query = "label_values(chopmark_gateway_requests_total, network)"
        variables.append(variable("query", "network", query, datasource=SOURCE, includeAll=True, allValue=".*", multi=True))
    return {
        "uid": f"chopmark-{name}",
        "title": f"Chopmark: {title}",
        "description": description,
        "tags": ["chopmark"],
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": variables},
        "panels": [panel(number, *each) for number, each in enumerate(panels)],
    }


def main():
    check = "--check" in sys.argv
    wanted = {f"{name}.json": dashboard(name, *rest) for name, rest in DASHBOARDS.items()}
    there = {file.name for file in HERE.glob("*.json")}
    wrong = sorted(there - set(wanted))
    for name, content in wanted.items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        file = HERE / name
        if check:
            if not file.exists() or file.read_text() != text:
                wrong.append(name)
        else:
            file.write_text(text)
    if wrong:
        sys.exit(f"dashboards: not what make.py makes: {', '.join(wrong)}; run deploy/grafana/make.py")


if __name__ == "__main__":
    main()
