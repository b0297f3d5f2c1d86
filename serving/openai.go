package serving

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The settings of the engines openai and vllm in an endpoint's auxiliary configuration, beside AuxAddress, whose
// addresses are those that clients of the API take, such as http://host:8000/v1, and AuxModel.
const (
	AuxKeyEnv     = "key_env"     // the environment variable of the instance with the key for the addresses
	AuxFallback   = "fallback"    // the endpoint that answers while no address does
	AuxResponses  = "responses"   // who answers the Responses API: chat (the default), or engine
	AuxImages     = "images"      // send (the default), or note: for a model that sees no images
	AuxStall      = "stall"       // seconds without a byte after which an answer is given up
	AuxCommand    = "command"     // the engine's own server, as a child process
	AuxEngineArgs = "engine_args" // engine_args.max_model_len=8192: arguments of vLLM, beside VLLM_ENGINE_ARGS
)

// OpenAI are the settings of an endpoint of the engines openai and vllm.
type OpenAI struct {
	// Addresses are the base addresses of servers, without the "/v1" and a slash at the end.
	Addresses []string
	// KeyEnv names the instance's environment variable with the key for the servers, "" for none.
	KeyEnv string
	// Model is the model's name there, "" for the only one that they have.
	Model string
	// Fallback is the endpoint that answers while no address does, "" for none.
	Fallback EndpointURL
	// OwnResponses: the servers answer the Responses API. Otherwise its requests are sent as chat completions.
	OwnResponses bool
	// NoteImages: the model sees no images, and is told so where a request has one. Otherwise they are sent.
	NoteImages bool
	// Stall bounds the pauses of an answer.
	Stall time.Duration
	// Command starts the engine's server as a child process, in words. Only vllm has one.
	Command []string
	// EngineArgs are arguments of vLLM by their names, in the form of VLLM_ENGINE_ARGS.
	EngineArgs map[string]any
}

const (
	defaultStall = 120
	mostStall    = 3600
)

// speaksOpenAI reports whether an engine's endpoints are servers of the OpenAI API.
func speaksOpenAI(engine string) bool { return engine == EngineOpenAI || engine == EngineVLLM }

func openAISettings(engine string) []string {
	settings := []string{AuxModel, AuxFallback, AuxResponses, AuxImages, AuxStall, AuxEnvironment}
	if engine == EngineVLLM {
		return append(settings, AuxCommand, AuxEngineArgs)
	}
	return append(settings, AuxAddress, AuxKeyEnv)
}

// OpenAIOf reads the settings of the engines openai and vllm. The error is a *FieldError. Other engines have none.
func OpenAIOf(engine string, aux any) (OpenAI, error) {
	o := OpenAI{Stall: defaultStall * time.Second}
	if !speaksOpenAI(engine) {
		return o, nil
	}
	settings, err := pythonSettings(engine, aux, openAISettings(engine)...)
	if err != nil {
		return o, err
	}
	for _, read := range []func(map[string]any) error{o.readAddresses, o.readNames, o.readBehaviour, o.readCommand} {
		if err := read(settings); err != nil {
			return o, err
		}
	}
	switch {
	case engine == EngineOpenAI && len(o.Addresses) == 0:
		return o, &FieldError{Field: auxField(AuxAddress), Why: "is missing: give the address of the server, as in --aux-config address=http://127.0.0.1:8000/v1"}
	case engine == EngineVLLM && len(o.Addresses) > 0:
		return o, &FieldError{Field: auxField(AuxAddress), Why: "is not for engine vllm, which starts its server itself: use --engine openai"}
	case engine == EngineOpenAI && (len(o.Command) > 0 || len(o.EngineArgs) > 0):
		return o, &FieldError{Field: auxField(AuxCommand), Why: "is not for engine openai, which starts nothing: use --engine vllm"}
	}
	return o, nil
}

func (o *OpenAI) readAddresses(settings map[string]any) error {
	for _, text := range words(settings[AuxAddress]) {
		address, err := baseAddress(text)
		if err != nil {
			return err
		}
		if !slices.Contains(o.Addresses, address) {
			o.Addresses = append(o.Addresses, address)
		}
	}
	if len(o.Addresses) > mostAddresses {
		return &FieldError{Field: auxField(AuxAddress), Why: fmt.Sprintf("has %d addresses: give at most %d", len(o.Addresses), mostAddresses)}
	}
	return nil
}

// baseAddress checks an address. A user and password in it would be shown with the configuration.
func baseAddress(text string) (string, error) {
	fault := func(why string) (string, error) {
		return "", &FieldError{Field: auxField(AuxAddress), Value: shownValue(text), Why: why}
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fault("is not an address: give one such as http://host:8000/v1")
	case u.User != nil:
		return "", &FieldError{Field: auxField(AuxAddress), Why: "holds a user or password, which everyone who reads the configuration would see: use " + AuxKeyEnv}
	case u.RawQuery != "" || u.Fragment != "":
		return fault("has a query or a fragment: give the address alone")
	}
	return strings.TrimSuffix(strings.TrimRight(u.String(), "/"), "/v1"), nil
}

// variableName is the form of an environment variable's name.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ownVariables begin the names of variables with credentials of other servers, which no address gets.
var ownVariables = []string{"CLEARML_", "AWS_", "AZURE_", "GOOGLE_"} //nolint:gochecknoglobals // a constant table

// notOwn refuses a variable with a credential of another server: who may configure an endpoint chooses its address too.
func notOwn(setting, variable string) error {
	if slices.ContainsFunc(ownVariables, func(prefix string) bool { return strings.HasPrefix(strings.ToUpper(variable), prefix) }) {
		return &FieldError{Field: auxField(setting), Value: shownValue(variable), Why: "holds a credential for other servers: give the key a variable of its own"}
	}
	return nil
}

func (o *OpenAI) readNames(settings map[string]any) error {
	o.Model = plainText(settings[AuxModel])
	o.KeyEnv = plainText(settings[AuxKeyEnv])
	if o.KeyEnv != "" && !variableName.MatchString(o.KeyEnv) {
		return &FieldError{Field: auxField(AuxKeyEnv), Why: "is not the name of an environment variable: give a name such as OPENAI_API_KEY; the key itself does not belong here"}
	}
	if err := notOwn(AuxKeyEnv, o.KeyEnv); err != nil {
		return err
	}
	if text := plainText(settings[AuxFallback]); text != "" {
		if err := validateURL(auxField(AuxFallback), text); err != nil {
			return err
		}
		o.Fallback = CleanURL(text)
	}
	return nil
}

func (o *OpenAI) readBehaviour(settings map[string]any) error {
	switch text := plainText(settings[AuxResponses]); text {
	case "", "chat":
	case "engine":
		o.OwnResponses = true
	default:
		return &FieldError{Field: auxField(AuxResponses), Value: shownValue(text), Why: "is neither chat nor engine"}
	}
	switch text := plainText(settings[AuxImages]); text {
	case "", "send":
	case "note":
		o.NoteImages = true
	default:
		return &FieldError{Field: auxField(AuxImages), Value: shownValue(text), Why: "is neither send nor note"}
	}
	if value, set := settings[AuxStall]; set {
		seconds, err := wholeNumber(value, 1, mostStall, auxField(AuxStall))
		if err != nil {
			return err
		}
		o.Stall = time.Duration(seconds) * time.Second
	}
	return nil
}

func (o *OpenAI) readCommand(settings map[string]any) error {
	if value, set := settings[AuxCommand]; set {
		if o.Command = strings.Fields(plainText(value)); len(o.Command) > 0 {
			if _, isList := value.([]any); isList {
				o.Command = words(value)
			}
		}
		if len(o.Command) == 0 {
			return &FieldError{Field: auxField(AuxCommand), Why: "is empty: give the command that starts the server"}
		}
	}
	value, set := settings[AuxEngineArgs]
	if !set {
		return nil
	}
	args, ok := value.(map[string]any)
	if !ok {
		return &FieldError{Field: auxField(AuxEngineArgs), Value: shownValue(value), Why: "is not a group of settings: give " + AuxEngineArgs + ".max_model_len=8192, for example"}
	}
	o.EngineArgs = maps.Clone(args)
	return nil
}

// plainText is a setting as text without quotes, "" if it is not set.
func plainText(value any) string {
	if value == nil {
		return ""
	}
	return strings.TrimSpace(unquoted(fmt.Sprint(value)))
}

// words are the words of a setting: a list, or a text with spaces or commas.
func words(value any) (list []string) {
	if items, ok := value.([]any); ok {
		for _, item := range items {
			list = append(list, plainText(item))
		}
		return list
	}
	return strings.FieldsFunc(plainText(value), func(r rune) bool { return r == ',' || r == ' ' })
}
