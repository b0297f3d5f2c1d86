package main

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"clearmlserving/worker"
)

// workerAccount finds the account of --worker-user and puts its home and name into
// the environment of user code; nil when workers run as we do.
func (a *app) workerAccount(dataDir string, env []string) (*worker.Account, []string, error) {
	s := a.setting("worker-user")
	if s.value == "" {
		return nil, env, nil
	}
	found, err := user.Lookup(s.value)
	if err != nil {
		if found, err = user.LookupId(s.value); err != nil {
			return nil, nil, s.refuse("there is no such account on this machine")
		}
	}
	uid, err := strconv.Atoi(found.Uid)
	if err != nil {
		return nil, nil, s.refuse("its number is " + found.Uid)
	}
	gid, err := strconv.Atoi(found.Gid)
	if err != nil {
		return nil, nil, s.refuse("its group's number is " + found.Gid)
	}
	switch {
	case uid == 0 || gid == 0:
		return nil, nil, s.refuse("it is root, from whom the service's secrets cannot be kept")
	case os.Geteuid() != 0:
		return nil, nil, hint(s.refuse("only a service that runs as root can start processes of other accounts"), "Try: without --worker-user, user code then runs as you do")
	}
	if closed := closedFor(dataDir); closed != "" {
		return nil, nil, hint(fmt.Errorf("%s: account %s cannot reach the data folder %s, because %s is closed to others", s.source, found.Username, dataDir, closed),
			"Try: --data-dir /var/lib/clearml-serving")
	}
	kept := make([]string, 0, len(env)+2)
	for _, variable := range env {
		if name, _, _ := strings.Cut(variable, "="); name != "HOME" && name != "USER" {
			kept = append(kept, variable)
		}
	}
	return &worker.Account{UID: uid, GID: gid, DataDir: dataDir}, append(kept, "HOME="+found.HomeDir, "USER="+found.Username), nil
}

// closedFor names the first folder above dir that not everybody may pass through,
// "" when there is none. What lies below dir is ours to open.
func closedFor(dir string) string {
	for above := filepath.Dir(dir); ; above = filepath.Dir(above) {
		if info, err := os.Stat(above); err == nil && info.Mode().Perm()&0o001 == 0 {
			return above
		}
		if above == filepath.Dir(above) {
			return ""
		}
	}
}
