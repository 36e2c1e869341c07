//! The query of a request, with form escapes: `a=b&c=d`.

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn read(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(n, v)| (decoded(n), decoded(v)))
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Reads a flag like the engine: a value is true unless it is empty, `0`, `no`, `false` or `none`.
    pub(super) fn flag(&self, name: &str) -> bool {
        let value = self.get(name).unwrap_or_default().trim().to_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }
}

/// Decodes `%41` and `+`. An invalid escape stays as it is.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(hex);
        let (byte, skip) = match (escaped, first) {
            (Some(byte), _) => (byte, 2),
            (None, b'+') => (b' ', 0),
            (None, other) => (*other, 0),
        };
        bytes.push(byte);
        rest = tail.get(skip..).unwrap_or_default();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_forms_write_it() {
        let query =
            Query::read("all=true&filters=%7B%22label%22%3A%5B%22a%3Db+c%22%5D%7D&v&force=0&odd=%zz%4");
        assert_eq!(query.get("filters"), Some(r#"{"label":["a=b c"]}"#));
        assert_eq!((query.flag("all"), query.flag("v"), query.flag("force")), (true, false, false));
        assert_eq!((query.get("odd"), query.get("none")), (Some("%zz%4"), None));
    }
}
