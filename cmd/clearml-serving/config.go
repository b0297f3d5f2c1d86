package main

import (
	"context"
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"clearmlserving/serving"
)

// serviceFlags are the settings of a service that config changes.
type serviceFlags struct {
	baseURL, triton, kafka string
	logFreq                number
	auth                   string
}

func configCommand(a *app) *cobra.Command {
	var f serviceFlags
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Change the settings of a serving service",
		Long:  `Change the settings of a serving service. An empty value ("") takes a setting away.`,
		Example: `  clearml-serving config --triton-grpc-server triton:8001 --kafka-metric-server kafka:9092
  clearml-serving config --metric-log-freq 0.1
  clearml-serving config --auth on`,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.baseURL, "base-serving-url", "", "external address of the inference instances, as http://host:8080/serve")
	flags.StringVar(&f.triton, "triton-grpc-server", "", "address of Triton's gRPC port")
	flags.StringVar(&f.kafka, "kafka-metric-server", "", "address of a Kafka broker for statistics")
	flags.Var(&f.logFreq, "metric-log-freq", "share of the requests whose variables are logged, 0 to 1")
	flags.StringVar(&f.auth, "auth", "", "whether requests need a key, on or off (see auth create)")
	mark(flags, "auth", markOurs)
	wait.declare(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.config(cmd.Context(), f, cmd.Flags().Changed, wait)
	}
	return cmd
}

func (a *app) config(ctx context.Context, f serviceFlags, given func(flag string) bool, wait waitFlags) error {
	if v := f.logFreq.value; v != nil && (math.IsNaN(*v) || *v < 0 || *v > 1) {
		return &serving.FieldError{Field: serving.ParamMetricLoggingFreq, Value: pyFloat(*v), Why: "is not a share of requests: give a number from 0 to 1"}
	}
	if given("auth") && f.auth != "on" && f.auth != "off" {
		return hint(fmt.Errorf("--auth %s: give on or off", pyText(f.auth)), "Try: clearml-serving config --auth on")
	}
	s, err := a.openForEdit(ctx)
	if err != nil {
		return err
	}
	a.print.line("Configure serving service id=%s", s.Doc.ID)
	a.printSync(s)
	changed := object{}
	for _, setting := range []struct {
		flag, name, value, kind string
		shown                   string // its name in the original's line, "" for no line
		unused                  bool   // nothing of this version reads it
	}{
		{"base-serving-url", serving.ParamServingBaseURL, f.baseURL, "str", "base_serving_url", true},
		{"triton-grpc-server", serving.ParamTritonGRPCServer, f.triton, "str", "triton_grpc_server", true},
		{"kafka-metric-server", serving.ParamKafkaServiceServer, f.kafka, "str", "", true},
		{"metric-log-freq", serving.ParamMetricLoggingFreq, f.logFreqText(), "float", "metric_log_freq", false},
	} {
		if !given(setting.flag) {
			continue
		}
		if err := s.SetParameter(ctx, setting.name, setting.value, setting.kind); err != nil {
			return err
		}
		if setting.shown != "" {
			a.print.line("Configuring serving service [id=%s] %s=%s", s.Doc.ID, setting.shown, setting.value)
		}
		changed = append(changed, field{setting.name, setting.value})
		if setting.unused && setting.value != "" {
			put(a.sys.stderr, "Notice: %s is stored for the Python product; instances of this version do not use it", setting.name)
		}
	}
	if given("auth") {
		if err := a.requireKeys(ctx, s, f.auth); err != nil {
			return err
		}
		changed = append(changed, field{"auth", f.auth})
	}
	return a.finish(ctx, s, wait, nil, object{{"id", s.Doc.ID}, {"changed", changed}})
}

func (f *serviceFlags) logFreqText() string {
	if f.logFreq.value == nil {
		return ""
	}
	return pyFloat(*f.logFreq.value)
}
