package bulkhead

// Template is text with placeholders, see ParseTemplate.
type Template struct {
	text string
}

// ParseTemplate reads a template over the named columns.
func ParseTemplate(text string, columns []string) (Template, error) {
	return Template{text}, nil
}

// Expand returns the text for one item.
func (t Template) Expand(it Item) string { return t.text }

// Constant reports whether every item expands to the same text.
func (t Template) Constant() bool { return true }
