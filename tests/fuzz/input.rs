//! Turns a fuzzer's bytes into decisions. When the bytes run out, every decision is the first
//! option.

pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Up to 255 bytes; the first byte is the length.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// Text in which every third character may be special to an encoder.
    pub(crate) fn text(&mut self) -> String {
        const ODD: [&str; 12] = [
            "\n", "\r", "\r\n", "\0", ":", " ", "data: ", "\u{feff}", "é", "\u{2028}", "\n\n",
            "id: 1\n",
        ];
        let mut text = String::new();
        for char in String::from_utf8_lossy(self.bytes()).chars() {
            match char {
                '\u{1}'..='\u{9}' | '\u{b}' | '\u{c}' | '\u{e}' => {
                    text.push_str(ODD[(char as usize - 1) % ODD.len()]);
                }
                char => text.push(char),
            }
        }
        text
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}
