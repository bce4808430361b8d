// Package kubernetes measures Bulkhead on a real Kubernetes, the lab's, beside
// what people would use there instead, in the same run: a Helm release for each
// call, a Job for each call, and one Indexed Job.
//
//	make bench-kubernetes
//	go test -run '^$' -bench Batch -benchtime 1x ./bench/kubernetes -scale 0.1
//
// The server runs on this machine as its users start it; scripts run in real pods
// of the lab's node, except where 200 fake nodes stand for a large cluster.
package kubernetes
