// Package coordinator is the one authority on a run's membership. It admits nodes, issues generations (who takes part, in
// which order, from which step), takes reports, stops everybody when one fails, and shows the run to those who watch.
// It never sees an image or a weight, and no gradient passes it: it needs no engine and builds without cgo.
//
//	lift train, lift coordinator          node, one process each
//	        │                                   │
//	  Coordinator.Run                     Gossip ── finds the coordinator's gRPC address
//	   ├── gRPC: Config, Join, Report, Watch ───┤
//	   │     └── run: the state, one mutex      └── ring to the next node (package allreduce)
//	   ├── supervise: the only timers
//	   ├── Gossip (memberlist)
//	   └── HTTP: /metrics /sd /healthz
//
// A node's Join stream is its lease: when it breaks before the node has reported that it is done or has left, the run
// fails and names the node. (Gossip sees failures too, but later and, on a loaded host, falsely: they are logged.)
package coordinator
