package tell

import _ "embed" // the rules

// Rules are the alert rules, a rule file of Prometheus.
//
//go:embed rules.yaml
var Rules []byte
