"""What a run has learned, as one page that opens in any browser.

Read in this order: `files` reads a work directory, `differences` finds what an
attempt changed, `words` and `style` hold the words and the look, `curves` and
`figures` draw, `markup`, `tables`, `examples` and `page` write HTML, `build`
puts it all on disk.
"""
