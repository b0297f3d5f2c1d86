package clearml

import (
	"net/url"
	"strings"
)

// derive derives the web and file servers from the API server by the SDK's rules if they are not
// configured. They stay empty if no rule matches.
func derive(c *Config) {
	hosted := c.API.Value == hostedAPI
	if c.Web.Value == "" {
		c.Web = Setting{webOf(c.API.Value), "derived from the API server"}
	}
	if c.Files.Value == "" {
		if hosted {
			c.Files.Value = hostedFiles
		} else {
			c.Files.Value = filesOf(c.Web.Value)
		}
		c.Files.From = "derived from the API server"
	}
	c.Web, c.Files = trimSlash(c.Web), trimSlash(c.Files)
}

func webOf(api string) string {
	switch {
	case api == hostedAPI:
		return hostedWeb
	case strings.Contains(api, "://demoapi."):
		return strings.Replace(api, "://demoapi.", "://demoapp.", 1)
	case strings.Contains(api, "://api."):
		return strings.Replace(api, "://api.", "://app.", 1)
	}
	if u, err := url.Parse(api); err == nil && u.Port() == "8008" {
		return strings.Replace(api, ":8008", ":8080", 1)
	}
	return ""
}

func filesOf(web string) string {
	u, err := url.Parse(web)
	if err != nil || u.Host == "" {
		return ""
	}
	switch {
	case u.Port() != "":
		u.Host = strings.TrimSuffix(u.Host, u.Port()) + "8081"
	case strings.HasPrefix(u.Host, "demoapp."):
		u.Host = "demofiles." + strings.TrimPrefix(u.Host, "demoapp.")
	case strings.HasPrefix(u.Host, "app."):
		u.Host = "files." + strings.TrimPrefix(u.Host, "app.")
	default:
		u.Host += ":8081"
	}
	return u.String()
}

// Variables are the environment of a program that uses the same server through the SDK. It contains
// secrets.
func (c Config) Variables() map[string]string {
	v := map[string]string{}
	for name, value := range map[string]string{
		"CLEARML_API_HOST": c.API.Value, "CLEARML_WEB_HOST": c.Web.Value, "CLEARML_FILES_HOST": c.Files.Value,
		"CLEARML_API_ACCESS_KEY": c.AccessKey.Value, "CLEARML_API_SECRET_KEY": c.SecretKey.Reveal(), "CLEARML_AUTH_TOKEN": c.Token.Reveal(),
	} {
		if value != "" {
			v[name] = value
		}
	}
	switch {
	case c.TLS.Insecure:
		v["CLEARML_API_HOST_VERIFY_CERT"] = "false"
	case c.TLS.CAFile != "":
		v["CLEARML_API_HOST_VERIFY_CERT"] = c.TLS.CAFile
	}
	return v
}
