// Package configs is what a run is told: its keys, their defaults, and the strict reading of a YAML file.
//
// # Two kinds of key
//
// A run's result is a function of its data, its weights and its result keys alone. So every key says, by the struct tag
// `kind`, which of the two it is:
//
//   - result: another value gives other adapters. The result keys, with the digest of the backbone's tensors and the digest
//     of the index, make the run digest. They are written into the adapters' file.
//   - placement: it says where, on what and how observed the run takes place, and cannot change a byte of the adapters. So
//     a path is a placement key: what lies there enters by its digest. train.max_steps is one too: it only says where to
//     stop. Some placement keys are further marked shared: all nodes of a run must agree on them, or they would wait for
//     each other in different places.
//
// [Config.ResultKeys] are the result keys in their canonical form; [Config.AgreedKeys] are those and the shared ones, which
// the coordinator compares when a node joins. A test fails when a key has no mark.
//
// # Reading
//
// [Load] reads one file, applies overrides (key=value, the value being YAML) and checks everything before any work
// starts. Nothing is passed over: an unknown key, a key given twice, a value of another type and an impossible value are
// errors with file and line, all of them reported together in an [Error]. Anchors, aliases and several documents in
// one file are not accepted.
//
// A value may be possible and yet not be built: [Config.NotBuilt] lists those.
package configs
