// Package launch starts a whole run on this host and looks after it: a coordinator, N nodes, and before them the fetching of the
// backbone and the packing of the data. Each is the lift binary itself with another verb. The launcher holds no state of the run: it reads the
// coordinator's events, shows them, and sees to it that every process ends, however it ends itself.
//
//	lift train ──┬─ lift weights pull            (to its end, first, when the backbone is named as at the hub)
//	             ├─ lift shard pack              (to its end, next, when data.shards is given)
//	             ├─ lift coordinator --json       stdout: one [Event] a line, the first is "ready"
//	             ├─ lift node --join … (node-0)   stdout and stderr: log lines
//	             └─ lift node --join … (node-1)
//
// A process may not outlive the launcher: the kernel kills it when the launcher is gone (see spawner). A first SIGINT
// or SIGTERM lets the nodes finish their step and write the state, a second kills.
package launch
