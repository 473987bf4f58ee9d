package telnyx

import (
	"cmp"
	"context"
	"fmt"
	"net/url"

	"voicebridge/providers"
)

// numbersReply is a page of numbers.
type numbersReply struct {
	Data []struct {
		Number     string `json:"phone_number"`
		Connection string `json:"connection_id"`
		Messaging  string `json:"messaging_profile_id"`
	} `json:"data"`
	Meta struct {
		Pages int `json:"total_pages"`
	} `json:"meta"`
}

// numbersPage is how many numbers are asked for at once.
const numbersPage = 100

// Numbers implements providers.NumberLister. Of the application that a number has, the
// webhook URL is looked up.
func (c *commands) Numbers(ctx context.Context) ([]providers.Number, error) {
	numbers, webhooks := []providers.Number{}, map[string]string{"": ""}
	err := providers.Pages(1, func(n int) (bool, error) {
		query := url.Values{"page[number]": {fmt.Sprint(n)}, "page[size]": {fmt.Sprint(numbersPage)}}
		var reply numbersReply
		if err := c.ask(ctx, "numbers", "/phone_numbers?"+query.Encode(), &reply); err != nil {
			return false, err
		}
		for _, one := range reply.Data {
			u, err := c.webhook(ctx, one.Connection, webhooks)
			if err != nil {
				return false, err
			}
			numbers = append(numbers, providers.Number{Number: one.Number, Webhook: u,
				Can: providers.Can(true, one.Messaging != "", false, false)})
		}
		return n >= reply.Meta.Pages, nil
	})
	return numbers, err
}

// webhook returns the webhook URL of a Call Control application; the id of a connection
// that is something else.
func (c *commands) webhook(ctx context.Context, id string, known map[string]string) (string, error) {
	if u, is := known[id]; is {
		return u, nil
	}
	var reply struct {
		Data struct {
			URL string `json:"webhook_event_url"`
		} `json:"data"`
	}
	err := c.ask(ctx, "application", "/call_control_applications/"+url.PathEscape(id), &reply)
	if err != nil && !providers.IsNoCall(err) {
		return "", err
	}
	known[id] = cmp.Or(reply.Data.URL, "connection "+id)
	return known[id], nil
}
