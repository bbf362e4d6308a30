//! `application/x-www-form-urlencoded`, as queries and forms have it, read strictly.

use super::refusal::Refusal;

/// Named values, each of a name that was expected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(Vec<(&'static str, String)>);

impl Form {
    /// Reads `text`. Empty values are as good as none.
    ///
    /// # Errors
    /// 400 for a name that is not among `names`, a name that stands twice, a broken escape, or bytes that are not
    /// UTF-8: what is not understood could have been a filter.
    pub fn parse(text: &str, names: &[&'static str]) -> Result<Self, Refusal> {
        let mut form = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = *names.iter().find(|known| **known == name).ok_or_else(|| {
                bad(format!("there is no parameter {name:?} here: there are {}", names.join(", ")))
            })?;
            if form.0.iter().any(|(known, _)| *known == name) {
                return Err(bad(format!("the parameter {name} stands twice")));
            }
            let value = decode(value).ok_or_else(|| bad(format!("the parameter {name} is badly encoded")))?;
            form.0.push((name, value));
        }
        Ok(form)
    }

    /// The value of that name, unless it is missing or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The value of that name as `read` understands it.
    ///
    /// # Errors
    /// 400 with the sentence of `read`.
    pub fn read<T, E: ToString>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Refusal> {
        let value = self.get(name).map(read).transpose();
        value.map_err(|error| bad(format!("{name}: {}", error.to_string())))
    }
}

fn bad(why: String) -> Refusal {
    Refusal::BadRequest(why.into())
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => 16 * digit(bytes.next()?)? + digit(bytes.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_empty_ones_are_none() {
        let form = Form::parse("repo=a%2Fb.c+d&user=&&state=p%C3%BC", &["state", "repo", "user"]).unwrap();
        assert_eq!((form.get("repo"), form.get("user")), (Some("a/b.c d"), None));
        assert_eq!(form.get("state"), Some("pü"));
        let number = form.read("state", |text| text.parse::<u32>());
        assert!(matches!(number, Err(Refusal::BadRequest(_))));
        assert_eq!(form.read("user", |text| text.parse::<u32>()), Ok(None));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["other=1", "a=1&a=2", "a=%", "a=%4", "a=%zz", "a=%+1", "a=%ff", "%61=1", "A=1"] {
            assert!(matches!(Form::parse(text, &["a"]), Err(Refusal::BadRequest(_))), "{text}");
        }
    }
}
