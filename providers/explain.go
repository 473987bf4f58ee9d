package providers

import (
	"net/url"
	"strings"
)

// OtherURLs returns the URLs that the carrier may have been given instead of h.URL,
// judged by what the request itself says: for Explain only.
func (h *Hook) OtherURLs() []string {
	u, err := url.Parse(h.URL)
	if err != nil {
		return nil
	}
	path := u.RequestURI()
	for _, own := range []string{"/hooks/", "/media/"} { // without the path of the public URL
		if i := strings.Index(path, own); i > 0 {
			path = path[i:]
		}
	}
	var all []string
	seen := map[string]bool{h.URL: true}
	for _, host := range []string{u.Host, h.Host, h.Header.Get("X-Forwarded-Host"), h.Header.Get("X-Original-Host")} {
		for _, scheme := range []string{"https", "http", "wss", "ws"} {
			for _, p := range []string{path, u.RequestURI(), strings.TrimSuffix(path, "/"), path + "/"} {
				if s := scheme + "://" + host + p; host != "" && !seen[s] {
					seen[s] = true
					all = append(all, s)
				}
			}
		}
	}
	return all
}

// PublicURLOf returns what public_url would have to be for a URL of a hook.
func PublicURLOf(s string) string {
	for _, own := range []string{"/hooks/", "/media/"} {
		if i := strings.Index(s, own); i > 0 {
			s = s[:i]
		}
	}
	if rest, ok := strings.CutPrefix(s, "ws"); ok {
		s = "http" + rest
	}
	return s
}
