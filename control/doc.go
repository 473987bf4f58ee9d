// Package control is what is done about calls: it answers them, places them, takes
// them elsewhere and ends them. It is the one place that decides. What carriers tell
// comes as call events, from webhooks or the carrier's own event socket, and is
// answered in the reply or by a command, as the carrier wants it; media connections
// become sessions here, and the API asks here.
//
// # A call, from its beginning to its end
//
//	inbound   Handle(CallAsked)            a record, and the answer that streams it
//	outbound  Dial, Handle(CallAsked)      a record, the carrier, the answer that streams it
//	media     ReadMedia, Admit, Begin      the ticket is used up, the session runs
//	stream over                            ending: what the agent's side has decided
//	          Handle(CallStepDone)         stepDone: what the carrier is to do next
//	status    Handle(CallProgress)         report: the record, the session, the transfer
//	nothing   sweep, Sweep                 the carrier is asked; what nobody knows is given up
//
// A record (package calls) may be here although the session is another instance's, and
// the other way round: a ticket in the URL says all that is needed to begin anywhere.
// What an instance does not know it looks up in the directory, and passes on
// (remote.go).
//
// # Who waits for whom
//
// Handle runs on the carrier's request, so it waits for nothing but the store, for less
// time than the carrier gives. What the carrier is asked for meanwhile is done beside
// (Later, and InOrder where one must come after another), with a time limit of its own,
// and is waited for at the end of the program.
//
// A call that is being taken elsewhere is in moves: while the request is under way, the
// carrier may ask what comes next, and is not answered before it is over (awaitMove),
// since what is answered before would count.
//
// # Locks
//
// gate guards that nothing begins once it would not be waited for: sessions when closed
// is set, background work when stopped is. It is never held over anything else. The
// records, the sessions and the totals have locks of their own and are asked for one
// after the other.
package control
