package kube

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// How long a pod may take before its being slow is a reason to name.
const (
	startPatience   = 2 * time.Minute // to start its containers
	connectPatience = time.Minute     // then to connect
	endPatience     = time.Minute     // to be gone, once its time to end is over
)

// trouble is why a pod does not become a worker.
type trouble struct {
	Code string // for the reason of a condition: one word
	Text string // one line
}

// Codes of troubles that Kubernetes has no word of its own for.
const (
	codeRefused    = "Refused"       // the API server refused the pod, or what it needs
	codeTaken      = "NameTaken"     // somebody else's pod has the name
	codeSlow       = "SlowStart"     // it is not started, and does not say why
	codeSilent     = "NotConnected"  // it runs, but its agent does not connect
	codeLingers    = "NotDeleted"    // it was to be gone, and its node does not say so
	codeFailed     = "Failed"        // it ended before it began
	codePolicy     = "NetworkPolicy" // the policy that the class names does not hold its pods
	codeShapes     = "TooManyShapes" // shapes.max
	codeBadShape   = "InvalidShape"  // a quantity that is none
	codeUnanswered = "APIServer"     // it does not answer
)

// waits are the reasons of a waiting container that are no trouble.
var waits = []string{"", "ContainerCreating", "PodInitializing"}

// troubleOf says why a pod does not work, if there is a reason; known says whether
// the server knows its agent, and listening since when there is a server. again is
// when time alone may change the answer.
func troubleOf(p *corev1.Pod, known bool, listening, now time.Time) (t trouble, again time.Duration) {
	if p.DeletionTimestamp != nil {
		if left := endPatience - now.Sub(p.DeletionTimestamp.Time); left > 0 {
			return trouble{}, left
		}
		return trouble{codeLingers, oneLine("pod %s was deleted, and node %s has not said that it is gone: until then no other takes its place",
			p.Name, p.Spec.NodeName)}, 0
	}
	if known {
		return trouble{}, 0
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return trouble{oneWord(c.Reason, "Unschedulable"), oneLine("no node takes pod %s: %s", p.Name, c.Message)}, 0
		}
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if t := containerTrouble(p.Name, &s); t != (trouble{}) {
			return t, 0
		}
	}
	if since, ok := runningSince(p); ok {
		if since.Before(listening) {
			since = listening // until then it had nobody to talk to
		}
		if left := connectPatience - now.Sub(since); left > 0 {
			return trouble{}, left
		}
		return trouble{codeSilent, oneLine("pod %s runs, but its agent has not connected to the server: see its log", p.Name)}, 0
	}
	if left := startPatience - now.Sub(p.CreationTimestamp.Time); left > 0 {
		return trouble{}, left
	}
	return trouble{codeSlow, oneLine("pod %s has not started in %s: kubectl describe pod -n %s %s may say why",
		p.Name, startPatience, p.Namespace, p.Name)}, 0
}

func containerTrouble(pod string, s *corev1.ContainerStatus) trouble {
	if w := s.State.Waiting; w != nil && !slices.Contains(waits, w.Reason) && w.Reason != "CrashLoopBackOff" {
		return trouble{w.Reason, oneLine("pod %s: container %s: %s: %s", pod, s.Name, w.Reason, w.Message)}
	}
	ended := s.State.Terminated
	if ended == nil {
		ended = s.LastTerminationState.Terminated
	}
	if ended == nil || ended.ExitCode == 0 {
		return trouble{}
	}
	text := fmt.Sprintf("pod %s: container %s ended with code %d", pod, s.Name, ended.ExitCode)
	if ended.Reason != "" && ended.Reason != "Error" {
		text += " (" + ended.Reason + ")"
	}
	if ended.Message != "" {
		text += ": " + ended.Message
	}
	return trouble{"CrashLoopBackOff", oneLine("%s", text)}
}

// endTrouble says why a pod ended before it began, or "".
func endTrouble(p *corev1.Pod) trouble {
	if p.Status.Phase != corev1.PodFailed || scriptEnded(p) {
		return trouble{}
	}
	return trouble{oneWord(p.Status.Reason, codeFailed), oneLine("pod %s failed before it started: %s %s", p.Name, p.Status.Reason, p.Status.Message)}
}

// script is the status of the container that scripts run in; nil: none yet.
func script(p *corev1.Pod) *corev1.ContainerStatus {
	for i := range p.Status.ContainerStatuses {
		if s := &p.Status.ContainerStatuses[i]; s.Name == scriptContainer {
			return s
		}
	}
	return nil
}

// scriptEnded says that the node has said that the container of the scripts has
// ended, and that it will not be started again.
func scriptEnded(p *corev1.Pod) bool {
	over := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	s := script(p)
	return over && s != nil && s.State.Terminated != nil
}

// everStarted says whether an agent may have begun to run in the pod.
func everStarted(p *corev1.Pod) bool {
	s := script(p)
	return s != nil && (s.State.Running != nil || s.State.Terminated != nil || s.RestartCount > 0 || s.LastTerminationState.Terminated != nil)
}

func runningSince(p *corev1.Pod) (time.Time, bool) {
	if s := script(p); s != nil && s.State.Running != nil {
		return s.State.Running.StartedAt.Time, true
	}
	return time.Time{}, false
}

// oneLine formats a text for a status: whitespace is folded, the rest of a long
// one left out.
func oneLine(format string, args ...any) string {
	const most = 400 // characters
	text := []rune(strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
	if len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(text)
}

// oneWord is a reason as conditions want it, or another if it is none.
func oneWord(reason, otherwise string) string {
	letters := func(r rune) bool { return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' }
	if reason == "" || strings.ContainsFunc(reason, func(r rune) bool { return !letters(r) }) {
		return otherwise
	}
	return reason
}
