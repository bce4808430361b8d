package bulkhead

// Window is the size of a terminal, in characters. The zero value is a size that
// nobody knows.
type Window struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

// MaxUntaken is how much may be typed, or piped, that the script of an interactive
// run has not read yet, in bytes: who is attached keeps that much, to send it again
// after a break, and who runs the script holds that much until it reads.
const MaxUntaken = 1 << 20

// CheckInteractive is the part of Check about interactive runs. An item that somebody
// types into must not start a second time by itself, and there is one script to type
// into.
func (s *Spec) CheckInteractive() error {
	switch {
	case s.Terminal && !s.Interactive:
		return refuse("interactive goes with terminal", "a terminal in which nobody can type")
	case !s.Terminal && s.Window != Window{}:
		return refuse("", "a window without a terminal")
	case !s.Interactive:
		return nil
	case !s.Single():
		return refuse("leave out the input, or what makes it interactive", "a run with an input (--each, --csv) cannot be interactive: nobody types into many scripts")
	case s.Retries > 0:
		return refuse("leave out the retries", "an interactive run is not retried: it would start again while somebody types")
	case s.Stdin != nil || s.StdinFile != "":
		return refuse("pipe it into an interactive run, or leave out what makes it interactive", "interactive and stdin (or a file for it) exclude each other")
	}
	return nil
}
