package controlplane

import (
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"strings"

	"golang.org/x/sync/semaphore"

	"clearmlserving/controlplane/api"
	"clearmlserving/controlplane/intake"
	"clearmlserving/controlplane/store"
	"clearmlserving/timeseries"
	"clearmlserving/timeseries/embedded"
	"clearmlserving/timeseries/gather"
	"clearmlserving/timeseries/remotewrite"
)

// prometheusPath is the root of Prometheus' HTTP API on the API's socket.
const prometheusPath = "/prometheus"

// writePath is where instances write samples, below prometheusPath.
const writePath = "/api/v1/write"

// maxWrites is how many requests with samples are decoded and stored at a time.
const maxWrites = 4

// prometheus answers Prometheus' HTTP API: what Grafana asks, and the samples that instances write.
type prometheus struct {
	auth   *api.Auth
	calls  *api.Server
	series *embedded.Store // nil: there are none
	reads  http.Handler
	// elsewhere says where the time series are if series is nil.
	elsewhere string
	bodies    *intake.Budget
	writes    *semaphore.Weighted
	log       *slog.Logger
}

func newPrometheus(auth *api.Auth, calls *api.Server, bodies *intake.Budget, o Options, log *slog.Logger) *prometheus {
	p := &prometheus{auth: auth, calls: calls, series: o.TimeSeries, elsewhere: o.TimeSeriesElsewhere, bodies: bodies, writes: semaphore.NewWeighted(maxWrites), log: log}
	if p.series != nil {
		p.reads = http.StripPrefix(prometheusPath, p.series.Handler())
	}
	return p
}

// routes lists the routes, for the table in docs/security.md.
func (*prometheus) routes() []Route {
	routes := []Route{{"api", "POST", prometheusPath + writePath, "instances: users, for an instance that they may change"}}
	for _, r := range embedded.Routes() {
		routes = append(routes, Route{"api", r.Methods, prometheusPath + r.Path, "users and guests"})
	}
	return routes
}

// ServeHTTP implements http.Handler.
func (p *prometheus) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who, err := p.auth.Authenticate(r)
	if err != nil {
		p.refuse(w, err)
		return
	}
	switch path := strings.TrimPrefix(r.URL.Path, prometheusPath); {
	case p.series == nil:
		embedded.WriteError(w, http.StatusNotFound, "not_found", "this server keeps no time series: "+p.elsewhere)
	case path == writePath:
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			embedded.WriteError(w, http.StatusMethodNotAllowed, string(timeseries.BadData), "samples are written with POST")
			return
		}
		p.write(w, r, who)
	default:
		p.reads.ServeHTTP(w, r)
	}
}

// refuse answers a caller without valid credentials, or an error of the store.
func (p *prometheus) refuse(w http.ResponseWriter, err error) {
	var told *api.Error
	if errors.Is(err, store.ErrUnavailable) {
		unavailable(w, "the database of the control plane isn't reached: try again")
		return
	}
	if !errors.As(err, &told) {
		p.log.Error("caller not identified", "err", err)
		embedded.WriteError(w, http.StatusInternalServerError, string(timeseries.Internal), "the caller cannot be identified: try again")
		return
	}
	kind := "forbidden"
	switch told.Code {
	case http.StatusUnauthorized:
		kind = "unauthorized"
		w.Header().Set("WWW-Authenticate", `Basic realm="ClearML credentials"`)
	case http.StatusBadRequest:
		kind = string(timeseries.BadData)
	}
	embedded.WriteError(w, told.Code, kind, told.Msg)
}

// write stores the samples of an instance, with the labels of its record.
func (p *prometheus) write(w http.ResponseWriter, r *http.Request, who api.Identity) {
	bad := func(status int, text string) { embedded.WriteError(w, status, string(timeseries.BadData), text) }
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != remotewrite.ContentType || params["proto"] != "" && params["proto"] != "prometheus.WriteRequest" || !strings.EqualFold(r.Header.Get("Content-Encoding"), remotewrite.Encoding) {
		bad(http.StatusUnsupportedMediaType, "samples are taken as application/x-protobuf of remote write version 1, compressed with snappy")
		return
	}
	task := r.Header.Get(remotewrite.InstanceHeader)
	if task == "" {
		bad(http.StatusBadRequest, "the header "+remotewrite.InstanceHeader+" is missing: it has the id of the task of the instance whose samples these are")
		return
	}
	instance, err := p.calls.ChangeableInstance(r.Context(), who, task)
	if err != nil {
		p.refuse(w, err)
		return
	}
	if instance.Name == "" {
		unavailable(w, "the instance has not reported yet: try again")
		return
	}
	body, err := p.bodies.Read(w, r, remotewrite.MaxBody)
	switch {
	case errors.Is(err, intake.ErrBusy):
		unavailable(w, err.Error())
		return
	case err != nil:
		bad(intake.Status(err), "the samples did not arrive: "+err.Error())
		return
	}
	defer body.Release()
	if !p.writes.TryAcquire(1) { // not before the body is there: a slow sender keeps nobody waiting
		unavailable(w, "too many requests with samples are being stored: try again")
		return
	}
	defer p.writes.Release(1)
	batch, err := remotewrite.Decode(body.Text, map[string]string{
		gather.Service: instance.ServiceID, gather.ServiceName: instance.ServiceName, gather.Instance: instance.Name,
	})
	if err != nil {
		bad(http.StatusBadRequest, err.Error())
		return
	}
	err = p.series.WriteFrom(r.Context(), instance.ServiceID+" "+instance.Name, batch)
	var refused *embedded.Refused
	switch {
	case errors.As(err, &refused):
		bad(http.StatusBadRequest, err.Error())
	case err != nil:
		p.log.Warn("samples not stored", "instance", instance.Name, "err", err)
		unavailable(w, err.Error())
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func unavailable(w http.ResponseWriter, text string) {
	w.Header().Set("Retry-After", "5")
	embedded.WriteError(w, http.StatusServiceUnavailable, string(timeseries.Unavailable), text)
}
