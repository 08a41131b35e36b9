//! URLs with secrets in them: checked and shown without telling user, password or parameters.

use url::Url;

use super::settings::Form;

/// The URLs in `raw`: a comma separates them only where several are allowed, and may be part of a
/// password elsewhere.
pub(super) fn urls(form: Form, raw: &str) -> Vec<&str> {
    match form {
        Form::Urls(_) => raw.split(',').collect(),
        _ => vec![raw],
    }
}

/// Checks one or several URLs; the error never shows them.
pub(super) fn check_urls(form: Form, raw: &str) -> Result<(), String> {
    let (Form::Url(schemes) | Form::Urls(schemes)) = form else {
        return Ok(());
    };
    for part in urls(form, raw) {
        if part.is_empty() || part.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!("must be {form}, without blanks"));
        }
        let Some((scheme, _)) = part.split_once("://") else {
            return Err(format!("must be {form}"));
        };
        if !schemes.contains(&scheme) {
            // Something longer is no scheme, but perhaps half a password.
            let named = if scheme.len() <= 12 {
                scheme
            } else {
                "another"
            };
            return Err(format!(
                "must be {form}; the scheme {named:?} is not supported"
            ));
        }
        let url = Url::parse(part).map_err(|error| {
            format!(
                "must be {form}; this one cannot be read ({error}; special characters in user or \
                 password must be percent-encoded)"
            )
        })?;
        let local = scheme.contains("unix") || scheme.starts_with("postgres");
        if !local && url.host_str().is_none_or(str::is_empty) {
            return Err(format!("must be {form}; this one names no host"));
        }
    }
    Ok(())
}

/// Shows where URLs lead to: scheme, host, port and path; not user, password or parameters.
pub(super) fn mask_urls(form: Form, raw: &str) -> String {
    let masked: Vec<_> = urls(form, raw).into_iter().map(mask_url).collect();
    masked.join(",")
}

fn mask_url(raw: &str) -> String {
    let Ok(url) = Url::parse(raw) else {
        return "***".to_owned();
    };
    let user = if url.username().is_empty() && url.password().is_none() {
        ""
    } else {
        "***@"
    };
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}"));
    let query = if url.query().is_some() { "?***" } else { "" };
    format!(
        "{}://{user}{host}{}{}{query}",
        url.scheme(),
        port.unwrap_or_default(),
        url.path()
    )
}
