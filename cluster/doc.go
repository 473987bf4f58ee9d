// Package cluster lets several instances of the bridge act as one: a directory in
// Redis says which instance has a call, and a request that lands on another one is
// passed on to it.
//
// Three things are in the database. The Members: one lease for each instance, from which
// it is known who lives. The directory: one entry for each name, written when it comes,
// changes and goes, and at no other time. And what must happen once: tokens.
//
// Requests go over publish and subscribe, with an answer for each: nothing has to
// be stored or trimmed. One that is lost is sent again, and handled once. What must not
// be lost, the state of transfers, is not told here but stored.
//
// An instance alone needs none of this: a nil *Cluster knows only itself.
package cluster
