//! What stands behind the `?` of a request, read strictly: a misspelt parameter is an error.

use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::problem::Problem;
use crate::domain::device::DeviceId;
use crate::ports::StatusPage;

/// How many entries a page has when nobody says.
pub const DEFAULT_LIMIT: u32 = 100;

/// The part of a listing that is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listing {
    /// What the page begins after.
    pub after: Option<DeviceId>,
    /// At most so many.
    pub limit: u32,
}

impl Listing {
    /// Reads `limit` and `cursor`.
    ///
    /// # Errors
    /// [`Problem`] names the parameter.
    pub fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut listing = Self {
            after: None,
            limit: DEFAULT_LIMIT,
        };
        for (name, value) in pairs(query) {
            match name.as_str() {
                "cursor" => listing.after = Some(cursor(&value)?),
                "limit" => listing.limit = limit(&value)?,
                _ => return Err(unknown(&name, "limit and cursor")),
            }
        }
        Ok(listing)
    }
}

fn cursor(value: &str) -> Result<DeviceId, Problem> {
    let parsed = Uuid::parse_str(value).map(DeviceId);
    parsed.map_err(|_| Problem::bad_request("cursor is not what `next` of the page before says"))
}

fn limit(value: &str) -> Result<u32, Problem> {
    let parsed = value.parse().ok();
    let allowed = parsed.filter(|limit| (1..=StatusPage::MAX).contains(limit));
    allowed
        .ok_or_else(|| Problem::bad_request(format!("limit must be from 1 to {}", StatusPage::MAX)))
}

/// Reads `wait`.
///
/// # Errors
/// [`Problem`] names the parameter.
pub fn wait(query: Option<&str>) -> Result<bool, Problem> {
    let mut wait = false;
    for (name, value) in pairs(query) {
        wait = match (name.as_str(), value.as_str()) {
            ("wait", "true") => true,
            ("wait", "false") => false,
            ("wait", _) => return Err(Problem::bad_request("wait must be true or false")),
            _ => return Err(unknown(&name, "wait")),
        };
    }
    Ok(wait)
}

/// Refuses any parameter.
///
/// # Errors
/// [`Problem`] names the parameter.
pub fn none(query: Option<&str>) -> Result<(), Problem> {
    match pairs(query).next() {
        None => Ok(()),
        Some((name, _)) => Err(unknown(&name, "none")),
    }
}

fn unknown(name: &str, known: &str) -> Problem {
    Problem::bad_request(format!("no parameter {name:?} here; known: {known}"))
}

fn pairs(query: Option<&str>) -> impl Iterator<Item = (String, String)> {
    let parts = query.unwrap_or_default().split('&');
    parts.filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        (decode(name), decode(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_a_default_and_a_maximum() {
        assert_eq!(Listing::parse(None).unwrap().limit, DEFAULT_LIMIT);
        assert_eq!(Listing::parse(Some("limit=1000")).unwrap().limit, 1000);
        let id = Uuid::from_u128(7);
        let query = format!("cursor={id}&limit=%32");
        let listing = Listing::parse(Some(&query)).unwrap();
        assert_eq!((listing.after, listing.limit), (Some(DeviceId(id)), 2));
        for bad in [
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=",
            "cursor=7",
            "Limit=5",
            "x",
        ] {
            assert_eq!(Listing::parse(Some(bad)).unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn only_true_waits() {
        assert!(wait(Some("wait=true")).unwrap());
        assert!(!wait(Some("wait=false")).unwrap() && !wait(Some("")).unwrap());
        assert_eq!(wait(Some("wait=yes")).unwrap_err().status, 400);
        assert_eq!(wait(Some("wait=true&force=1")).unwrap_err().status, 400);
        assert!(none(None).is_ok() && none(Some("a=1")).is_err());
    }
}
