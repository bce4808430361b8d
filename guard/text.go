package guard

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
)

const (
	// A page is what fits a terminal: nobody scrolls at five in the morning.
	pageLines, pageWidth = 24, 80
	labelWidth           = 10
)

// Text writes findings for people, the worst first: of each one page of at most 24
// lines that says what grows, since when and how fast, who makes it, when it hurts, and
// what to do now. Width is that of the terminal; 0 is 80. Commands are never cut.
func Text(w io.Writer, findings []bulkhead.Finding, now time.Time, width int) error {
	if width <= 0 {
		width = pageWidth
	}
	for i := range findings {
		p := page{width: max(width, 40)}
		if i > 0 {
			p.lines = append(p.lines, "")
		}
		p.write(&findings[i], now)
		if _, err := io.WriteString(w, strings.Join(p.lines, "\n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// page is one finding as lines.
type page struct {
	width int
	lines []string
}

// line adds a line with its label; what does not fit goes on in one more line at most.
func (p *page) line(label, format string, args ...any) {
	text := clean(fmt.Sprintf(format, args...))
	room := p.width - labelWidth
	if utf8.RuneCountInString(text) <= room {
		p.lines = append(p.lines, fmt.Sprintf("%-*s%s", labelWidth, label, text))
		return
	}
	first, rest := text, ""
	if cut := strings.LastIndex(string([]rune(text)[:room+1]), " "); cut > room/2 {
		first, rest = text[:cut], text[cut+1:]
	}
	p.lines = append(p.lines, fmt.Sprintf("%-*s%s", labelWidth, label, bulkhead.OneLine(first, room)))
	if rest != "" {
		p.lines = append(p.lines, strings.Repeat(" ", labelWidth)+bulkhead.OneLine(rest, room))
	}
}

func (p *page) write(f *bulkhead.Finding, now time.Time) {
	p.lines = append(p.lines, bulkhead.OneLine(strings.ToUpper(string(f.Severity))+": "+f.Title, p.width))
	p.line("finding", "%s", f.ID)
	p.line("since", "%s", since(f, now))
	members := sortedMembers(f.Members)
	if grows(f) {
		p.line("ratio", "%s", ratios(members))
	}
	p.line("there are", "%s", there(f, members))
	p.line("names", "%s", names(members))
	p.line("made by", "%s", madeBy(f))
	if f.Keeps != "" {
		p.line("kept", "%s", f.Keeps)
	}
	if f.Exempt != nil {
		p.line("runs", "%s", f.Exempt)
	}
	if len(f.Reaches) == 0 {
		p.line("reaches", "no budget in 30 days")
	}
	for i, r := range f.Reaches[:min(len(f.Reaches), 4)] {
		label := ""
		if i == 0 {
			label = "reaches"
		}
		switch { // what fails, and how not to make it worse, is told whole
		case throttles(r):
			p.line(label, "%s", slows(r))
			continue
		case ofAgent(r) && r.Budget.Unit == budget.Bytes:
			p.line(label, "%s", fills(r))
			continue
		}
		p.lines = append(p.lines, bulkhead.OneLine(fmt.Sprintf("%-*s%s", labelWidth, label, reaches(r)), p.width))
	}
	p.advise(f.Advice)
}

// advise writes what to do, as far as the page has room.
func (p *page) advise(advice []bulkhead.Advice) {
	if len(advice) == 0 {
		return
	}
	p.lines = append(p.lines, "what to do now, the safest first:")
	for i, a := range advice {
		lines := []string{bulkhead.OneLine(fmt.Sprintf("%2d %s", i+1, a.Text), p.width)}
		if a.Command != "" && utf8.RuneCountInString(a.Command) <= longestCommand { // half of one does something else
			lines = append(lines, "     "+bulkhead.OneLine(a.Command, longestCommand))
		}
		if len(p.lines)+len(lines) > pageLines {
			if len(p.lines) < pageLines {
				p.lines = append(p.lines, fmt.Sprintf("   … %d more with -o json", len(advice)-i))
			}
			return
		}
		p.lines = append(p.lines, lines...)
	}
}

func since(f *bulkhead.Finding, now time.Time) string {
	if !grows(f) {
		return sinceWhen(f, now)
	}
	text := fmt.Sprintf("%s UTC (%s ago), %s times an hour", f.Since.UTC().Format("2006-01-02 15:04"), Duration(now.Sub(f.Since)), Number(f.PerHour))
	if !f.Ended.IsZero() {
		text += fmt.Sprintf("; ended %s ago", Duration(now.Sub(f.Ended)))
	}
	return text
}

// singular is what one object of a kind is called; other kinds go by their plural.
var singular = map[string]string{
	"jobs.batch": "Job", "pods": "Pod", "networkpolicies.networking.k8s.io": "NetworkPolicy", "configmaps": "ConfigMap", "secrets": "Secret",
	"services": "Service", "endpointslices.discovery.k8s.io": "EndpointSlice", "persistentvolumeclaims": "PersistentVolumeClaim",
	"replicasets.apps": "ReplicaSet", "serviceaccounts": "ServiceAccount", "rolebindings.rbac.authorization.k8s.io": "RoleBinding",
	"leases.coordination.k8s.io": "Lease", "events": "Event", "cronjobs.batch": "CronJob", "deployments.apps": "Deployment",
}

func one(kind string) string {
	if name := singular[kind]; name != "" {
		return name
	}
	return short(kind)
}

func many(kind string) string {
	name := one(kind)
	if stem, ok := strings.CutSuffix(name, "Policy"); ok {
		return stem + "Policies"
	}
	if singular[kind] == "" {
		return name
	}
	return name + "s"
}

// ratios is how many of each kind come with one step of a growth.
func ratios(members []bulkhead.Member) string {
	parts := make([]string, 0, len(members))
	for _, m := range members {
		name := one(m.Kind)
		if m.Ratio != 1 {
			name = many(m.Kind)
		}
		parts = append(parts, strconv.FormatFloat(m.Ratio, 'f', -1, 64)+" "+name)
	}
	return strings.Join(parts, " : ")
}

func there(f *bulkhead.Finding, members []bulkhead.Member) string {
	if !grows(f) && len(f.Reaches) > 0 {
		return thereOver(f)
	}
	parts := make([]string, 0, len(members))
	for _, m := range members {
		text := fmt.Sprintf("%s %s", Number(float64(m.Objects)), short(m.Kind))
		if m.Rules > 0 {
			text += fmt.Sprintf(" (%s rules)", Number(float64(m.Rules)))
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// names is by what they can be known: the pattern of the first kind, and the newest.
func names(members []bulkhead.Member) string {
	m := members[0]
	text := m.Family
	if text == All {
		text = "of no common pattern"
	}
	if m.Example != "" {
		text += ", for example " + m.Example
	}
	return text
}

func madeBy(f *bulkhead.Finding) string {
	var parts []string
	if f.Client != "" {
		parts = append(parts, f.Client)
	}
	if users := withShare(f.Users); len(users) > 0 {
		parts = append(parts, "as "+list(users))
	}
	for _, of := range f.Facts {
		_, key, found := strings.Cut(of.Key, "/")
		if !found {
			key = of.Key
		}
		parts = append(parts, key+" "+of.Value)
	}
	if len(parts) == 0 && !grows(f) {
		return "bulkhead why " + named(f.Members[0].Kind) + " says more"
	}
	if len(parts) == 0 {
		return "nothing on them says who"
	}
	return strings.Join(parts, ", ")
}

// slows says when an agent is throttled.
func slows(r bulkhead.Reach) string {
	if r.In <= 0 {
		return "now: " + r.Detail
	}
	return in(r) + ": " + r.Detail
}

// in says in what time something is reached.
func in(r bulkhead.Reach) string {
	text := "in " + Duration(r.In)
	if low, high := Duration(r.Low), Duration(r.High); r.High > r.Low && r.High <= 2*horizon && low != high {
		text += fmt.Sprintf(" (%s – %s)", low, high)
	}
	return text
}

func reaches(r bulkhead.Reach) string {
	text := fmt.Sprintf("%s %s", Number(r.Budget.Limit), r.Budget.Name)
	if r.In <= 0 {
		text += fmt.Sprintf(": over it (%s)", Number(r.Now))
	} else {
		text += " " + in(r)
	}
	if r.Detail != "" {
		return text + "; " + r.Detail
	}
	return text + "; " + r.Budget.Source
}

// fills says when the memory of an agent is full.
func fills(r bulkhead.Reach) string {
	text := fmt.Sprintf("%s (limit %s, now %s) is full", r.Budget.Name, bulkhead.Mebibytes(r.Budget.Limit), bulkhead.Mebibytes(r.Now))
	if r.In > 0 {
		text += " " + in(r)
	}
	parts := slices.DeleteFunc([]string{text, r.Detail, r.Budget.Source}, func(part string) bool { return part == "" })
	return strings.Join(parts, "; ")
}

// Number is a number for people: 12,537; below ten with one digit behind the point.
func Number(v float64) string {
	if math.Abs(v) < 10 && v != math.Trunc(v) {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	digits := strconv.FormatFloat(math.Round(math.Abs(v)), 'f', 0, 64)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	if v < 0 {
		return "-" + digits
	}
	return digits
}

// Duration is a duration for people: 45m, 3h50m, 2d 4h.
func Duration(d time.Duration) string {
	switch d = d.Round(time.Minute); {
	case d < time.Minute:
		return "less than a minute"
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		if m := int(d.Minutes()) % 60; m != 0 {
			return fmt.Sprintf("%dh%02dm", int(d.Hours()), m)
		}
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	days, hours := int(d.Hours())/24, int(d.Hours())%24
	if hours == 0 || days > 6 {
		return fmt.Sprintf("%dd", days)
	}
	return fmt.Sprintf("%dd %dh", days, hours)
}
