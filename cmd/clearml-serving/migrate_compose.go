package main

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The most that is read of a compose file or a file of variables.
const composeLimit = 1 << 20

// container is a service of a compose file.
type container struct {
	name, image string
	variables   map[string]string
	ports       []string
	volumes     []string
}

// product is the part of the Python product that the container is: inference, statistics, triton,
// "" for none.
func (c container) product() string {
	image := c.image[strings.LastIndex(c.image, "/")+1:]
	image, _, _ = strings.Cut(image, ":")
	image, _, _ = strings.Cut(image, "@")
	part, ours := strings.CutPrefix(image, "clearml-serving-")
	if !ours {
		return ""
	}
	part, _, _ = strings.Cut(part, "-")
	return part
}

// readEnvFile reads lines of NAME=value, as docker compose does: comments, export, quotes.
func readEnvFile(path string) (map[string]string, error) {
	text, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, composeLimit+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || !variableName.MatchString(name) { // the line may be a part of a secret, which is not shown
			return nil, fmt.Errorf("%s:%d: the line is not of the form NAME=value", path, n)
		}
		if len(value) > 1 && (value[0] == '"' || value[0] == '\'') {
			end := strings.IndexByte(value[1:], value[0])
			if end < 0 {
				return nil, fmt.Errorf("%s:%d: the value of %s has no closing quote", path, n, name)
			}
			value = value[1 : end+1]
		} else if at := strings.Index(value, " #"); at >= 0 {
			value = strings.TrimSpace(value[:at])
		}
		found[name] = value
	}
	return found, lines.Err()
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

func readSmall(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", notFound("file '%s' could not be found", path)
	case err != nil:
		return "", err
	case info.Size() > composeLimit:
		return "", fmt.Errorf("%s has %d bytes, more than a file of this kind", path, info.Size())
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

// readCompose reads the containers of a compose file, with ${VARIABLES} replaced.
func readCompose(path string, lookUp func(string) (string, bool)) ([]container, error) {
	text, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Services map[string]struct {
			Image       string    `yaml:"image"`
			Environment yaml.Node `yaml:"environment"`
			Ports       []any     `yaml:"ports"`
			Volumes     []any     `yaml:"volumes"`
		} `yaml:"services"`
	}
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		return nil, fmt.Errorf("compose file %s: %w", path, err)
	}
	if len(file.Services) == 0 {
		return nil, fmt.Errorf("compose file %s has no services", path)
	}
	var found []container
	for _, name := range slices.Sorted(maps.Keys(file.Services)) {
		service := file.Services[name]
		c := container{name: name, image: interpolate(service.Image, lookUp), variables: map[string]string{}}
		switch service.Environment.Kind {
		case 0:
		case yaml.MappingNode:
			var values map[string]*string
			if err := service.Environment.Decode(&values); err != nil {
				return nil, fmt.Errorf("compose file %s: environment of %s: %w", path, name, err)
			}
			for variable, value := range values {
				if value == nil { // passed on from the machine
					passed, _ := lookUp(variable)
					value = &passed
				}
				c.variables[variable] = interpolate(*value, lookUp)
			}
		default:
			var lines []string
			if err := service.Environment.Decode(&lines); err != nil {
				return nil, fmt.Errorf("compose file %s: environment of %s: %w", path, name, err)
			}
			for _, line := range lines {
				variable, value, ok := strings.Cut(line, "=")
				if !ok {
					value, _ = lookUp(variable)
				}
				c.variables[variable] = interpolate(value, lookUp)
			}
		}
		for _, port := range service.Ports {
			c.ports = append(c.ports, interpolate(fmt.Sprint(port), lookUp))
		}
		for _, volume := range service.Volumes {
			c.volumes = append(c.volumes, interpolate(fmt.Sprint(volume), lookUp))
		}
		found = append(found, c)
	}
	return found, nil
}

var inCompose = regexp.MustCompile(`\$(?:\$|\{([A-Za-z_]\w*)(?:(:?[-+?])([^}]*))?\}|([A-Za-z_]\w*))`)

// interpolate replaces ${NAME}, ${NAME:-otherwise}, ${NAME:+instead}, $NAME and $$.
func interpolate(text string, lookUp func(string) (string, bool)) string {
	return inCompose.ReplaceAllStringFunc(text, func(word string) string {
		m := inCompose.FindStringSubmatch(word)
		if word == "$$" {
			return "$"
		}
		name := m[1] + m[4]
		value, set := lookUp(name)
		if strings.HasPrefix(m[2], ":") {
			set = value != ""
		}
		switch strings.TrimPrefix(m[2], ":") {
		case "-":
			if !set {
				return m[3]
			}
		case "+":
			if set {
				return m[3]
			}
			return ""
		}
		return value
	})
}

// otherImages are the parts beside the product's own in its compose files, by a part of the image's name.
var otherImages = []struct{ image, text string }{
	{"zookeeper", "is not needed: Kafka works without it, and statistics work without Kafka"},
	{"kafka", "is needed only if statistics go over Kafka: instances expose them themselves"},
	{"alertmanager", "is kept; monitoring/prometheus/rules.yml has alerts"},
	{"prometheus", "is kept, or left out: instances keep time series themselves. It scrapes /metrics of the admin address of instances"},
	{"grafana", "is kept; monitoring/grafana has dashboards, also for the original's names of metrics"},
}

// checkContainers says what becomes of each container.
func checkContainers(containers []container) []finding {
	var found []finding
	say := func(state, fix, format string, args ...any) {
		found = append(found, finding{"container", state, fmt.Sprintf(format, args...), fix})
	}
	for _, c := range containers {
		other := slices.IndexFunc(otherImages, func(o struct{ image, text string }) bool { return strings.Contains(c.image, o.image) })
		switch part := c.product(); {
		case part == "inference":
			say(stateOK, "", "%s becomes clearml-serving inference", c.name)
			found = append(found, checkInferenceContainer(c)...)
		case part == "statistics":
			say(stateOK, "", "%s becomes clearml-serving statistics, or is left out: instances expose the same metrics", c.name)
		case part == "triton":
			say(stateOK, "", "%s becomes clearml-serving triton, which runs a tritonserver of yours", c.name)
		case part != "":
			say(stateFail, "Deploy these models in another form (ONNX models by the engine onnx), or keep that container for them", "%s (%s) has no counterpart here", c.name, c.image)
		case other >= 0:
			say(stateOK, "", "%s %s", c.name, otherImages[other].text)
		default:
			say(stateOK, "", "%s (%s) is not of the product and stays as it is", c.name, c.image)
		}
	}
	if !slices.ContainsFunc(containers, func(c container) bool { return c.product() != "" }) {
		say(stateWarn, "", "no container has an image of clearml-serving")
	}
	return found
}

// checkInferenceContainer looks at ports and volumes.
func checkInferenceContainer(c container) []finding {
	var found []finding
	port := firstOf(c.variables["CLEARML_SERVING_PORT"], "8080")
	mapped := len(c.ports) == 0
	for _, p := range c.ports {
		inside, _, _ := strings.Cut(p[strings.LastIndex(p, ":")+1:], "/")
		mapped = mapped || inside == port || strings.HasPrefix(p, "map[")
	}
	if !mapped {
		found = append(found, finding{
			"container", stateFail, fmt.Sprintf("%s listens on port %s (CLEARML_SERVING_PORT), and only %s is mapped: no request reaches it", c.name, port, strings.Join(c.ports, ", ")),
			fmt.Sprintf("Map the same port: %s:%s", port, port),
		})
	}
	if c.variables["CLEARML_SERVING_PORT"] == "" {
		found = append(found, finding{
			"container", stateFail, c.name + " sets no CLEARML_SERVING_PORT: without it an instance listens on 127.0.0.1 only",
			"Set CLEARML_SERVING_PORT: 8080, or --serve-addr 0.0.0.0:8080",
		})
	}
	if !slices.ContainsFunc(c.volumes, func(v string) bool {
		return strings.Contains(v, "/.clearml") || strings.Contains(v, "/.local") // in the container's home
	}) {
		found = append(found, finding{
			"container", stateWarn, c.name + " has no volume for its data: downloaded models, environments of packages and statistics are lost with the container",
			"Mount a volume, and name it in CLEARML_SERVING_HOME",
		})
	}
	return found
}
