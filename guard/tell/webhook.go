package tell

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"bulkhead.dev/bulkhead/webhook"
)

// Message is what is posted: Alertmanager's, version 4, so that whatever takes its
// alerts takes these
// (https://prometheus.io/docs/alerting/latest/configuration/#webhook_config).
type Message struct {
	Version           string            `json:"version"`
	GroupKey          string            `json:"groupKey"`
	TruncatedAlerts   int               `json:"truncatedAlerts"`
	Status            string            `json:"status"` // firing if one of the alerts is, else resolved
	Receiver          string            `json:"receiver"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       string            `json:"externalURL"`
	Alerts            []Alert           `json:"alerts"`
}

// Alert is one alert of a Message. EndsAt of one that fires is the year 1, as it is
// with Alertmanager.
type Alert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"`
}

const (
	firing   = "firing"
	resolved = "resolved"
)

// messageOf is the message of some notes.
func messageOf(notes []note, link string) Message {
	m := Message{
		Version: "4", GroupKey: fmt.Sprintf("{}:{alertname=%q}", Alertname), Status: resolved, Receiver: "bulkhead",
		GroupLabels: map[string]string{"alertname": Alertname}, ExternalURL: link,
	}
	for i := range notes {
		n := &notes[i]
		a := Alert{Status: firing, Labels: n.Labels, Annotations: n.Annotations, StartsAt: n.Since, EndsAt: n.Ended, GeneratorURL: link,
			Fingerprint: n.fingerprint()}
		if n.news == ended {
			a.Status = resolved
		} else {
			m.Status = firing
		}
		m.Alerts = append(m.Alerts, a)
		if i == 0 {
			m.CommonLabels, m.CommonAnnotations = maps.Clone(a.Labels), maps.Clone(a.Annotations)
			continue
		}
		keepCommon(m.CommonLabels, a.Labels)
		keepCommon(m.CommonAnnotations, a.Annotations)
	}
	return m
}

func keepCommon(common, with map[string]string) {
	for k, v := range common {
		if w, has := with[k]; !has || w != v {
			delete(common, k)
		}
	}
}

// alertmanager is the webhook.
type alertmanager struct {
	poster *webhook.Poster
	link   string
}

func (*alertmanager) name() string { return "webhook" }

// repeat is Alertmanager's repeat_interval.
func (*alertmanager) repeat() time.Duration { return 4 * time.Hour }

func (w *alertmanager) close() { w.poster.Close() }

// send posts all notes in one message: it arrives, or none of them does.
func (w *alertmanager) send(ctx context.Context, notes []note) (int, error) {
	body, err := json.Marshal(messageOf(notes, w.link))
	if err != nil {
		return 0, err
	}
	if err := w.poster.Post(ctx, body); err != nil {
		return 0, err
	}
	return len(notes), nil
}
