package serving

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// The settings of the engine v2 in an endpoint's auxiliary configuration, beside AuxNaNAsNull. Triton has the
// addresses and the compression of its service.
const (
	AuxAddress      = "address"       // --aux-config address=host:8001, several as [host1:8001, host2:8001]
	AuxModel        = "model"         // the model's name on the server; without it that of the endpoint
	AuxVersion      = "version"       // the model's version on the server; without it the server chooses
	AuxProtocol     = "protocol"      // grpc or rest
	AuxPath         = "path"          // what is before /v2 in the paths of a server with the protocol rest
	AuxTLS          = "tls"           // true: connections are encrypted
	AuxTLSCA        = "tls_ca"        // a file with the certificates of the server's authority
	AuxKeyVariable  = "key_variable"  // the environment variable of the instance that has the server's key
	AuxCompression  = "compression"   // true: requests are compressed with gzip
	AuxStream       = "stream"        // true: the model streams its answers
	AuxProbeTimeout = "probe_timeout" // the seconds that the server has to answer a probe
)

// The protocols of a server.
const (
	ProtocolGRPC = "grpc"
	ProtocolREST = "rest"
)

// V2 are the settings of an endpoint whose model is on another server of the Open Inference Protocol.
type V2 struct {
	Addresses           []string // host:port
	Model, Version      string
	Protocol            string
	Path                string // "" or "/prefix"
	TLS                 bool
	CA                  string
	KeyVariable         string
	Compression, Stream bool
	ProbeTimeout        time.Duration // 0: the default
}

const mostProbeTimeout = 60

// v2Settings are the names of the settings, in the order in which they are documented.
var v2Settings = []string{AuxAddress, AuxModel, AuxVersion, AuxProtocol, AuxPath, AuxTLS, AuxTLSCA, AuxKeyVariable, AuxCompression, AuxStream, AuxProbeTimeout}

// V2Of reads the settings of the engine v2. The error is a *FieldError. Other engines have none.
func V2Of(engine string, aux any) (V2, error) {
	v := V2{Protocol: ProtocolGRPC}
	if engine != EngineV2 {
		return v, nil
	}
	settings, err := pythonSettings(engine, aux, v2Settings...)
	if err != nil {
		return v, err
	}
	if v.Addresses, err = addressesOf(settings[AuxAddress]); err != nil {
		return v, err
	}
	for name, to := range map[string]*string{AuxModel: &v.Model, AuxVersion: &v.Version, AuxTLSCA: &v.CA, AuxKeyVariable: &v.KeyVariable, AuxPath: &v.Path} {
		if value, set := settings[name]; set {
			if *to = plainText(value); *to == "" {
				return v, &FieldError{Field: auxField(name), Why: "is empty: give a value, or leave it out"}
			}
		}
	}
	if err := notOwn(AuxKeyVariable, v.KeyVariable); err != nil {
		return v, err
	}
	for name, to := range map[string]*bool{AuxTLS: &v.TLS, AuxCompression: &v.Compression, AuxStream: &v.Stream} {
		if value, set := settings[name]; set {
			if *to, err = trueOrFalse(value, auxField(name)); err != nil {
				return v, err
			}
		}
	}
	if value, set := settings[AuxProtocol]; set {
		switch v.Protocol = strings.ToLower(unquoted(fmt.Sprint(value))); v.Protocol {
		case ProtocolGRPC, ProtocolREST:
		case "http":
			v.Protocol = ProtocolREST
		default:
			return v, &FieldError{Field: auxField(AuxProtocol), Value: shownValue(value), Why: "is no protocol: give grpc or rest"}
		}
	}
	if value, set := settings[AuxProbeTimeout]; set {
		seconds, err := wholeNumber(value, 1, mostProbeTimeout, auxField(AuxProbeTimeout))
		if err != nil {
			return v, err
		}
		v.ProbeTimeout = time.Duration(seconds) * time.Second
	}
	if v.Path = strings.Trim(v.Path, "/"); v.Path != "" {
		v.Path = "/" + v.Path
	}
	switch {
	case v.Path != "" && v.Protocol == ProtocolGRPC:
		return v, &FieldError{Field: auxField(AuxPath), Value: shownValue(v.Path), Why: "means nothing with the protocol grpc: give protocol=rest, or remove it"}
	case v.Stream && v.Protocol == ProtocolREST:
		return v, &FieldError{Field: auxField(AuxStream), Why: "needs the protocol grpc: REST has no streams"}
	case v.CA != "" && !v.TLS:
		return v, &FieldError{Field: auxField(AuxTLSCA), Value: shownValue(v.CA), Why: "means nothing without tls=true"}
	}
	return v, nil
}

// trueOrFalse reads a switch.
func trueOrFalse(value any, field string) (bool, error) {
	switch strings.ToLower(unquoted(fmt.Sprint(value))) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, &FieldError{Field: field, Value: shownValue(value), Why: "is neither true nor false"}
}

func addressesOf(value any) ([]string, error) {
	field := auxField(AuxAddress)
	texts, isList := value.([]any)
	if !isList && value != nil {
		texts = []any{value}
	}
	var list []string
	for _, text := range texts {
		found, err := Addresses(unquoted(fmt.Sprint(text)), 0)
		if err != nil {
			return nil, &FieldError{Field: field, Value: shownValue(text), Why: err.Error()}
		}
		list = append(list, found...)
	}
	if len(list) == 0 {
		return nil, &FieldError{Field: field, Why: "is missing: the engine v2 needs the address of a server, as --aux-config address=host:8001"}
	}
	return list, nil
}

// mostAddresses bounds the addresses of one endpoint.
const mostAddresses = 64

// Addresses reads a list of addresses, separated by commas or blanks. An address without a port gets the given one, or
// is an error if that is 0. A scheme, as gRPC's names of addresses may have it, is removed.
func Addresses(text string, port int) ([]string, error) {
	var list []string
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
		word = unquoted(word)
		for _, scheme := range []string{"grpc://", "http://", "dns:///", "dns:"} {
			word = strings.TrimPrefix(word, scheme)
		}
		host, number, err := net.SplitHostPort(word)
		if err != nil && port > 0 {
			host, number, err = net.SplitHostPort(net.JoinHostPort(strings.Trim(word, "[]"), strconv.Itoa(port)))
		}
		if n, notNumber := strconv.Atoi(number); err != nil || host == "" || notNumber != nil || n < 1 || n > 65535 || strings.ContainsAny(host, "/?#@") {
			return nil, fmt.Errorf("has no address host:port in %q", word)
		}
		list = append(list, net.JoinHostPort(host, number))
	}
	if len(list) > mostAddresses {
		return nil, fmt.Errorf("has %d addresses: at most %d are possible", len(list), mostAddresses)
	}
	return list, nil
}

// AddressState is the state of an address of an engine that runs beside an instance.
type AddressState string

// The states of an address.
const (
	AddressHealthy AddressState = "healthy"
	AddressTrial   AddressState = "trial"   // one request finds out whether it answers again
	AddressEjected AddressState = "ejected" // it gets no requests
)

// AddressReport describes one address of an engine that runs beside an instance.
type AddressReport struct {
	// Pool tells the reports of one pool, which several endpoints may share, from those of others in this process. 0: of none.
	Pool uint64 `json:"-"`

	Address string       `json:"address"`
	State   AddressState `json:"state"`
	Since   time.Time    `json:"since"`
	// Reason says why the address is not healthy, in the words of its server if there are any.
	Reason      string `json:"reason,omitempty"`
	Outstanding int64  `json:"outstanding"`
	Answered    uint64 `json:"answered"`
	// Failed counts the requests that the server has not answered as its protocol says.
	Failed      uint64    `json:"failed,omitempty"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}
