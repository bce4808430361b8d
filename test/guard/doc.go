// Package guard makes the growth of Wikimedia's incident of 2024-10-09 on the lab,
// Helm release after Helm release, and looks that the guard of a server finds it in
// time, says who, tells of it once, and holds the server's runs until it has ended.
//
// The guard's time runs 40 times as fast: a quarter of an hour is 23 seconds.
package guard
