package serving

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// The settings of the engine torchserve in an endpoint's auxiliary configuration, beside AuxAddress, AuxProtocol,
// AuxStream, AuxModel and AuxVersion, which are those of a model that is registered already. The first five have the
// names and the meaning of TorchServe's management API.
const (
	AuxMinWorkers        = "min_workers"
	AuxMaxWorkers        = "max_workers"
	AuxBatchSize         = "batch_size"
	AuxMaxBatchDelay     = "max_batch_delay"  // milliseconds
	AuxResponseTimeout   = "response_timeout" // seconds
	AuxHandler           = "handler"          // of a model that is no archive
	AuxManagementAddress = "management_address"
	AuxGRPCAddress       = "grpc_address"
)

func torchServeSettings() []string {
	return []string{
		AuxMinWorkers, AuxMaxWorkers, AuxBatchSize, AuxMaxBatchDelay, AuxResponseTimeout, AuxHandler, AuxProtocol,
		AuxAddress, AuxManagementAddress, AuxGRPCAddress, AuxModel, AuxVersion, AuxStream,
	}
}

// TorchServe are the settings of an endpoint of the engine torchserve.
type TorchServe struct {
	MinWorkers, MaxWorkers int
	BatchSize              int
	MaxBatchDelay          time.Duration
	ResponseTimeout        time.Duration // 0: the server's own
	Handler                string        // "": of the code, or the one for tensors
	Protocol               string
	// Addresses of the APIs of servers that somebody else runs, nil: the server of the role torchserve. Lists of the
	// same length.
	Addresses, Management, GRPC []string
	// Model is a model that is registered there already, "": the endpoint's own model is registered.
	Model, Version string
	// Stream: answers come in pieces, over gRPC.
	Stream bool
}

// Limits of settings.
const (
	mostTorchWorkers = 1024
	mostTorchBatch   = 1 << 16
)

// TorchServeOf reads the settings of the engine torchserve. The error is a *FieldError. Other engines have none.
func TorchServeOf(engine string, aux any) (TorchServe, error) {
	t := TorchServe{MinWorkers: 1, BatchSize: 1, MaxBatchDelay: 100 * time.Millisecond, Protocol: ProtocolREST}
	if engine != EngineTorchServe {
		return t, nil
	}
	settings, err := pythonSettings(engine, aux, torchServeSettings()...)
	if err != nil {
		return t, err
	}
	delay, timeout := int(t.MaxBatchDelay/time.Millisecond), 0
	for _, n := range []struct {
		name        string
		to          *int
		least, most int
	}{
		{AuxMinWorkers, &t.MinWorkers, 1, mostTorchWorkers},
		{AuxMaxWorkers, &t.MaxWorkers, 1, mostTorchWorkers},
		{AuxBatchSize, &t.BatchSize, 1, mostTorchBatch},
		{AuxMaxBatchDelay, &delay, 0, int(time.Hour / time.Millisecond)},
		{AuxResponseTimeout, &timeout, 1, int(24 * time.Hour / time.Second)},
	} {
		if value, set := settings[n.name]; set {
			if *n.to, err = wholeNumber(value, n.least, n.most, auxField(n.name)); err != nil {
				return t, err
			}
		}
	}
	t.MaxBatchDelay, t.ResponseTimeout = time.Duration(delay)*time.Millisecond, time.Duration(timeout)*time.Second
	if t.MaxWorkers == 0 {
		t.MaxWorkers = t.MinWorkers
	}
	if t.MaxWorkers < t.MinWorkers {
		return t, &FieldError{Field: auxField(AuxMaxWorkers), Value: fmt.Sprint(t.MaxWorkers), Why: fmt.Sprintf("is less than %s=%d", AuxMinWorkers, t.MinWorkers)}
	}
	if value, set := settings[AuxProtocol]; set {
		t.Protocol = unquoted(fmt.Sprint(value))
		if t.Protocol != ProtocolREST && t.Protocol != ProtocolGRPC {
			return t, &FieldError{Field: auxField(AuxProtocol), Value: shownValue(value), Why: "is neither rest nor grpc"}
		}
	}
	if value, set := settings[AuxStream]; set {
		if t.Stream, err = trueOrFalse(value, auxField(AuxStream)); err != nil {
			return t, err
		}
	}
	return t, t.readTexts(settings)
}

// torchServeName is a name of a model or a handler, as TorchServe accepts it.
var torchServeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.\-]*(:\w+)?$`)

func (t *TorchServe) readTexts(settings map[string]any) error {
	for name, to := range map[string]*string{AuxHandler: &t.Handler, AuxModel: &t.Model, AuxVersion: &t.Version} {
		value, set := settings[name]
		if !set {
			continue
		}
		if *to = unquoted(fmt.Sprint(value)); !torchServeName.MatchString(*to) {
			return &FieldError{Field: auxField(name), Value: shownValue(value), Why: "is no name that TorchServe accepts: give letters, digits, -, _ and ."}
		}
	}
	var err error
	for name, to := range map[string]*[]string{AuxAddress: &t.Addresses, AuxManagementAddress: &t.Management, AuxGRPCAddress: &t.GRPC} {
		if value, set := settings[name]; set {
			if *to, err = torchAddresses(auxField(name), value, name != AuxGRPCAddress); err != nil {
				return err
			}
		}
	}
	count := len(t.Addresses)
	if count == 0 && t.Protocol == ProtocolGRPC {
		count = len(t.GRPC)
	}
	switch {
	case t.Model != "" && count == 0:
		return &FieldError{Field: auxField(AuxModel), Value: t.Model, Why: "is a model of a server elsewhere: give its " + AuxAddress + " too"}
	case t.Version != "" && t.Model == "":
		return &FieldError{Field: auxField(AuxVersion), Value: t.Version, Why: "is the version of a model that is registered already: give its " + AuxModel + " too"}
	case t.Protocol == ProtocolGRPC && len(t.Addresses) > 0 && len(t.GRPC) != len(t.Addresses):
		return &FieldError{Field: auxField(AuxGRPCAddress), Why: "needs as many addresses as " + AuxAddress}
	case len(t.Management) > 0 && len(t.Management) != count:
		return &FieldError{Field: auxField(AuxManagementAddress), Why: "needs as many addresses as " + AuxAddress}
	case t.Model == "" && count > 0 && len(t.Management) == 0:
		return &FieldError{Field: auxField(AuxManagementAddress), Why: "is missing: the model is registered there; or give the " + AuxModel + " of one that is registered already"}
	}
	return nil
}

// torchAddresses reads a list of addresses of HTTP or gRPC servers, in its canonical form: with a scheme for HTTP.
func torchAddresses(field string, value any, overHTTP bool) ([]string, error) {
	var addresses []string
	for _, item := range words(value) {
		text := strings.TrimRight(item, "/")
		scheme, host, found := strings.Cut(text, "://")
		if !found {
			scheme, host = "http", text
		}
		_, port, err := net.SplitHostPort(host)
		u, err2 := url.Parse(scheme + "://" + host)
		if err != nil || err2 != nil || port == "" || u.Host != host || scheme != "http" && scheme != "https" {
			return nil, &FieldError{Field: field, Value: shownValue(item), Why: "is no address: give 127.0.0.1:8080, for example"}
		}
		if overHTTP || scheme == "https" {
			host = scheme + "://" + host
		}
		addresses = append(addresses, host)
	}
	if len(addresses) == 0 {
		return nil, &FieldError{Field: field, Value: shownValue(value), Why: "has no address: give 127.0.0.1:8080, for example"}
	}
	return addresses, nil
}
