//! Netlink attributes, with numbers in network byte order as nf_tables has them.

const TYPE_MASK: u16 = 0x3fff;

/// A run of attributes, or what is in one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Every attribute with its type, in order.
    pub(super) fn all(self) -> impl Iterator<Item = (u16, Attributes<'a>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let header = rest.first_chunk::<4>()?;
            let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
            let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind, Attributes(value)))
        })
    }

    /// The attribute of that type.
    pub(super) fn get(self, kind: u16) -> Option<Attributes<'a>> {
        self.all().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    pub(super) fn number(self, kind: u16) -> Option<u32> {
        self.get(kind)?.0.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub(super) fn wide(self, kind: u16) -> Option<u64> {
        self.get(kind)?.0.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }

    pub(super) fn text(self, kind: u16) -> Option<String> {
        self.get(kind).map(Self::as_text)
    }

    /// All of it as text, up to a NUL.
    pub(super) fn as_text(self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        String::from_utf8_lossy(&self.0[..end]).into_owned()
    }
}
