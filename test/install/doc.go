// Package install puts Bulkhead into the lab as a platform team would, with kubectl
// and with Helm, lets people use it, upgrades it while scripts run, and takes it out
// again. It looks at all objects of all kinds: none is to be left.
package install
