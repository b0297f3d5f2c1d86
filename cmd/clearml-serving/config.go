package main

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

// serviceSetting is a parameter of a service that config shows and changes.
type serviceSetting struct {
	flag, name, kind string
	shown            string // its name in the original's line, "" for no line
	help             string
	used             bool // by instances of this version
}

var serviceSettings = []serviceSetting{
	{"base-serving-url", serving.ParamServingBaseURL, "str", "base_serving_url", "external address of the inference instances, as http://host:8080/serve", false},
	{"triton-grpc-server", serving.ParamTritonGRPCServer, "str", "triton_grpc_server", "address of Triton's gRPC port, as host:8001, several with commas", true},
	{"kafka-metric-server", serving.ParamKafkaServiceServer, "str", "", "Kafka brokers that statistics are sent to, as host:port, several with commas", true},
	{"metric-log-freq", serving.ParamMetricLoggingFreq, "float", "metric_log_freq", "share of the requests whose variables are logged, 0 to 1", true},
}

// switches are the settings that are on or off.
var switches = []string{"auth", "model-control"} //nolint:gochecknoglobals // a constant list

// onlyStored is said of what the stored configuration may hold although no instance of
// this version reads it.
const onlyStored = "stored for the Python product; instances of this version do not use it"

func configCommand(a *app) *cobra.Command {
	var auth, control string
	var logFreq float64
	texts := map[string]*string{}
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show or change the settings of a serving service",
		Long: `Show the settings of a serving service, or change those that are given. An empty
value ("") takes a setting away.

--base-serving-url is stored for the Python product; instances of this version do not use it.`,
		Example: `  clearml-serving config
  clearml-serving config --auth on
  clearml-serving config --base-serving-url http://serving.example:8080/serve`,
	}
	flags := cmd.Flags()
	for _, setting := range serviceSettings {
		if setting.kind == "float" {
			flags.Var(decimal(&logFreq), setting.flag, setting.help)
		} else {
			texts[setting.flag] = flags.String(setting.flag, "", setting.help)
		}
	}
	flags.StringVar(&auth, "auth", "", "whether requests need a key, on or off (see auth create)")
	mark(flags, "auth", markOurs)
	flags.StringVar(&control, "model-control", "", "whether clients of the Open Inference Protocol may load and unload endpoints, on or off (see auth create)")
	mark(flags, "model-control", markOurs)
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if math.IsNaN(logFreq) || logFreq < 0 || logFreq > 1 {
			return &serving.FieldError{Field: serving.ParamMetricLoggingFreq, Value: pyFloat(logFreq), Why: "is not a share of requests: give a number from 0 to 1"}
		}
		for _, name := range switches {
			if value, err := flags.GetString(name); err != nil || flags.Changed(name) && value != "on" && value != "off" {
				return hint(fmt.Errorf("--%s %s: give on or off", name, pyText(value)), "Try: clearml-serving config --%s on", name)
			}
		}
		return nil
	}
	a.edits(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		a.print.line("Configure serving service id=%s", s.Doc.ID)
		a.printSync(s)
		changed := object{}
		for _, setting := range serviceSettings {
			if !flags.Changed(setting.flag) {
				continue
			}
			value := pyFloat(logFreq)
			if text := texts[setting.flag]; text != nil {
				value = *text
			}
			if err := s.SetParameter(ctx, setting.name, value, setting.kind); err != nil {
				return change{}, err
			}
			if setting.shown != "" {
				a.print.line("Configuring serving service [id=%s] %s=%s", s.Doc.ID, setting.shown, value)
			}
			changed = append(changed, field{setting.name, value})
			if value != "" && !setting.used {
				put(a.sys.stderr, "Notice: %s is %s", setting.name, onlyStored)
			}
		}
		if flags.Changed("auth") {
			if err := a.requireKeys(ctx, s, auth == "on"); err != nil {
				return change{}, err
			}
			changed = append(changed, field{"auth", auth})
		}
		if flags.Changed("model-control") {
			if err := a.allowModelControl(ctx, s, control == "on"); err != nil {
				return change{}, err
			}
			changed = append(changed, field{"model_control", control})
		}
		return change{result: object{{"changed", changed}}}, nil
	})
	edit := cmd.RunE
	show := a.reads(cmd, a.showConfig).RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		given := slices.ContainsFunc(serviceSettings, func(s serviceSetting) bool { return flags.Changed(s.flag) })
		if given || slices.ContainsFunc(switches, flags.Changed) {
			return edit(cmd, args)
		}
		return show(cmd, args)
	}
	return cmd
}

// showConfig prints the settings of a service.
func (a *app) showConfig(_ context.Context, s *operations.Service) (object, error) {
	a.print.line("Settings of serving service '%s' id=%s", s.Doc.Name, s.Doc.ID)
	word := func(on bool) string {
		if on {
			return "on"
		}
		return "off"
	}
	auth, control := word(s.Config.Access.Required), word(s.Config.Access.ModelControl)
	rows := [][]string{{"auth", auth, plural(len(s.Config.Access.Keys), "key")}, {"model-control", control, ""}}
	settings := object{{"auth", auth}, {"model_control", control}}
	for _, setting := range serviceSettings {
		value, note := s.Doc.General[setting.name], ""
		if value != "" && !setting.used {
			note = onlyStored
		}
		rows = append(rows, []string{setting.flag, firstOf(value, "-"), note})
		settings = append(settings, field{setting.name, orNull(value)})
	}
	a.print.table([]string{"SETTING", "VALUE", "NOTE"}, rows)
	return object{{"id", s.Doc.ID}, {"name", s.Doc.Name}, {"settings", settings}}, nil
}
