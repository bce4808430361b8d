// Package family gives objects of a cluster that differ only in what a program made
// up for each of them one name. Thousands of randomly named things are one line for
// people, and one thing that grows.
//
//	mediawiki-r8x2k9qa-mail-config   mediawiki-*-mail-config
//	web-5d4f8c7b9-x7z2p              web-*
//	backup-29301234                  backup-*
//
// Name looks at a name alone, word by word: digits, hashes, what no person would
// pronounce. Key looks at the whole object: what made it (the end of the chain of its
// owners, its Helm release, the client) and which parts of its name are known to be
// made up, since its labels, its generateName or its owner say so.
//
// Both are pure and look at one object at a time. So they cannot tell a word that
// stands for one of many (user-alice-config, user-bob-config) from one that is fixed:
// nothing in the name says it. Who sees all objects can: the census counts the words
// that stand at one place of otherwise equal families, and where they are many makes
// them one with Star. The same goes for the rare random word that reads like a real
// one.
package family
