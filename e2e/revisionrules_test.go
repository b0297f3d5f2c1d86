//go:build linux

package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

// deployed is what one revision of the test's endpoint deploys.
type deployed struct {
	code     string // its text
	word     string // what it answers, if it can be loaded
	refuses  string // why it is refused everywhere, "" for good code
	judged   bool   // refused by the golden samples only
	needs    bool   // it needs a model
	model    string // "", good or bad
	deadline int    // a setting, 0 for none
	golden   bool   // it has golden samples
}

func (d deployed) sha() string {
	sum := sha256.Sum256([]byte(d.code))
	return hex.EncodeToString(sum[:])
}

// loads is d without what only judges answers.
func (d deployed) loads() deployed {
	d.golden = false
	return d
}

// rule is a revision as the rules of docs/rollout.md have it.
type rule struct {
	deployed
	number int
	state  string
}

// rules are the revisions of one endpoint, oldest first.
type rules []rule

func (r rules) newest() rule { return r[len(r)-1] }

// good is the newest revision that was served.
func (r rules) good() (rule, bool) {
	for _, one := range slices.Backward(r) {
		if one.state == "good" {
			return one, true
		}
	}
	return rule{}, false
}

// serves is what answers once the newest revision has been judged.
func (r rules) serves() rule {
	good, _ := r.good()
	return good
}

func (r rules) find(number int) (rule, bool) {
	at := slices.IndexFunc(r, func(one rule) bool { return one.number == number })
	if at < 0 {
		return rule{}, false
	}
	return r[at], true
}

// back is what a rollback without a number brings back.
func (r rules) back() (rule, bool) {
	for _, one := range slices.Backward(r[:len(r)-1]) {
		if one.state == "good" && one.loads() != r.newest().loads() {
			return one, true
		}
	}
	return rule{}, false
}

// verdict is what an instance finds out about d with these revisions before it.
func (r rules) verdict(d deployed) string {
	if good, ok := r.good(); ok && good.loads() == d.loads() {
		return "good" // it serves already, and golden samples do not judge what serves
	}
	if (d.refuses != "" && !d.judged) || (d.judged && d.golden) || (d.needs && d.model != "good") {
		return "refused"
	}
	return "good"
}

// adds appends a revision; of all, the newest 20 and the last good one are kept.
func (r rules) adds(one rule) rules {
	const kept = 20
	one.number = r.newest().number + 1
	all := append(slices.Clone(r), one)
	if len(all) <= kept {
		return all
	}
	left := slices.Clone(all[len(all)-kept:])
	if good, ok := all.good(); ok && good.number < left[0].number {
		left[0] = good
	}
	return left
}

// expected is a revision that a step makes.
type expected struct {
	deployed
	again bool // it was good before, and is not judged again
	maybe bool // made by an instance only if it looked between two writes
	ours  bool // made by a command of ours
}

// recorded is a revision in the output of model history.
type recorded struct {
	Revision   int
	State      string
	By         *string
	CodeSHA256 string `json:"code_sha256"`
	Reason     string
}

// follow compares what is recorded with what the rules say: the revisions before, and those that
// a step has made. It returns all of them.
func (r rules) follow(makes []expected, text string) (rules, error) {
	var history struct{ Revisions []recorded }
	if err := json.Unmarshal([]byte(text), &history); err != nil {
		return nil, err
	}
	slices.Reverse(history.Revisions)
	var made []recorded
	for _, one := range history.Revisions {
		if one.Revision > r.newest().number {
			made = append(made, one)
		}
	}
	extra := len(made)
	for _, e := range makes {
		if !e.maybe {
			extra--
		}
	}
	if extra < 0 {
		return nil, fmt.Errorf("%d revisions are missing", -extra)
	}
	all := r
	last := 0 // the index after the last of makes that is required
	for i, e := range makes {
		if !e.maybe {
			last = i + 1
		}
	}
	for i, e := range makes {
		if e.maybe && extra == 0 {
			continue
		}
		if len(made) == 0 {
			return nil, fmt.Errorf("revision for %+v is missing", e)
		}
		one := made[0]
		if e.maybe && (one.By != nil || one.CodeSHA256 != e.sha()) {
			continue // there was none
		}
		if e.maybe {
			extra--
		}
		made = made[1:]
		if one.CodeSHA256 != e.sha() || (one.By != nil) != e.ours {
			return nil, fmt.Errorf("revision %d is not %+v", one.Revision, e)
		}
		state := all.verdict(e.deployed)
		switch {
		case e.again:
			state = "good"
		case one.State == "pending" && i+1 < last:
			state = "pending" // it was followed before an instance had judged it
		}
		all = all.adds(rule{deployed: e.deployed, state: state})
	}
	if len(made) > 0 {
		return nil, fmt.Errorf("revision %d is not expected", made[0].Revision)
	}
	if len(all) != len(history.Revisions) {
		return nil, fmt.Errorf("%d revisions are kept, want %d", len(history.Revisions), len(all))
	}
	for i, want := range all {
		if got := history.Revisions[i]; got.Revision != want.number || got.State != want.state || got.CodeSHA256 != want.sha() {
			return nil, fmt.Errorf("revision %d is %s (%s), want %d %s %+v", got.Revision, got.State, got.Reason, want.number, want.state, want.deployed)
		}
	}
	return all, nil
}
