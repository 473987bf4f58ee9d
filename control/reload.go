package control

import (
	"context"

	"voicebridge/control/directory"
	routing "voicebridge/control/router"
	"voicebridge/providers"
)

// introduce tells accounts that are new what they need to know of the bridge.
func (c *Controller) introduce(before map[string]Account, e directory.Entries) {
	for name, a := range e.Accounts {
		if a.Account == before[name].Account {
			continue
		}
		a.Publish(func(answer *providers.Answer) string { return c.AnswerURL(a.Spec.Name, name, answer) })
		a.Speaks(func(said *providers.Answer) string { return c.WordsURL(a.Spec.Name, name, said) })
		a.Opens(func(media string, conn providers.MediaConn) error { return c.take(media, conn) })
	}
	var r *routing.Router
	if e.Router != nil {
		r = routing.New(e.Router, c.cfg.Log)
	}
	c.router.Store(r)
}

// Reload puts other accounts, agents and routes into the place of those that there are. Calls
// that are live keep their agent; those of an account that is gone can only be heard out.
func (c *Controller) Reload(e directory.Entries) {
	before := c.Entries()
	c.introduce(before.Accounts, e)
	c.Replace(e)
	for name, a := range before.Accounts {
		if a.Account != e.Accounts[name].Account {
			c.listening.End(name)
		}
	}
	for name, a := range e.Accounts {
		if a.Account != before.Accounts[name].Account {
			c.listening.Begin(name, func(ctx context.Context) { c.listen(ctx, name, a) })
		}
	}
	for name, a := range before.Agents {
		if a.Dialer != e.Agents[name].Dialer {
			closeAgent(a)
			c.gate.Lock()
			c.former = append(c.former, a)
			c.gate.Unlock()
		}
	}
}
