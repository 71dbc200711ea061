//! The encodings of AWS: JSON 1.1, and the query protocol that is answered in XML.

use http::{HeaderValue, Response, StatusCode};
use s3s::Body;
use serde_json::{Map, Value};
use tde2hsm_model::{ApiError, Service};

const EC2_NS: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
const STS_NS: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const SNS_NS: &str = "http://sns.amazonaws.com/doc/2010-03-31/";

/// The answer of `service` to `operation`.
pub fn respond(service: Service, operation: &str, result: &Result<Value, ApiError>, request_id: &str) -> Response<Body> {
    let status = match result {
        Ok(_) => StatusCode::OK,
        Err(error) => StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST),
    };
    let (kind, id_header, body) = match service {
        Service::Ec2 => ("text/xml;charset=UTF-8", "x-amzn-requestid", ec2(operation, result, request_id)),
        Service::Sts => ("text/xml", "x-amzn-requestid", query(STS_NS, operation, result, request_id)),
        Service::Sns => ("text/xml", "x-amzn-requestid", query(SNS_NS, operation, result, request_id)),
        Service::S3 => ("application/xml", "x-amz-request-id", s3_error(result, request_id)),
        Service::Ssm | Service::CloudHsm | Service::Secrets | Service::Kms => {
            ("application/x-amz-json-1.1", "x-amzn-requestid", json(service, result))
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(id_header, id);
    }
    response
}

fn json(service: Service, result: &Result<Value, ApiError>) -> String {
    match result {
        Ok(value) => value.to_string(),
        Err(error) => {
            // Errors a service models write `Message`, the common ones `message`, as all of KMS do.
            let common = service == Service::Kms
                || matches!(
                    error.code.as_str(),
                    "ThrottlingException"
                        | "AccessDeniedException"
                        | "UnrecognizedClientException"
                        | "UnknownOperationException"
                        | "ValidationException"
                        | "SerializationException"
                        | "ExpiredTokenException"
                        | "InvalidSignatureException"
                        | "IncompleteSignatureException"
                        | "MissingAuthenticationTokenException"
                );
            let member = if common { "message" } else { "Message" };
            let mut body = serde_json::json!({"__type": error.code});
            // Some errors are modelled without a text.
            if !error.message.is_empty() {
                body[member] = error.message.as_str().into();
            }
            body.to_string()
        }
    }
}

fn ec2(operation: &str, result: &Result<Value, ApiError>, request_id: &str) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    match result {
        Ok(value) => {
            out.push_str(&format!("<{operation}Response xmlns=\"{EC2_NS}\">"));
            element(&mut out, "requestId", &Value::from(request_id));
            members(&mut out, value);
            out.push_str(&format!("</{operation}Response>"));
        }
        Err(error) => {
            let error =
                serde_json::json!({"Errors": {"Error": {"Code": error.code, "Message": error.message}}, "RequestID": request_id});
            out.push_str("<Response>");
            members(&mut out, &error);
            out.push_str("</Response>");
        }
    }
    out
}

fn query(namespace: &str, operation: &str, result: &Result<Value, ApiError>, request_id: &str) -> String {
    let mut out = String::new();
    match result {
        Ok(value) => {
            out.push_str(&format!("<{operation}Response xmlns=\"{namespace}\"><{operation}Result>"));
            members(&mut out, value);
            out.push_str(&format!(
                "</{operation}Result><ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation}Response>"
            ));
        }
        Err(error) => {
            out.push_str(&format!("<ErrorResponse xmlns=\"{namespace}\">"));
            let error = serde_json::json!({"Error": {"Type": "Sender", "Code": error.code, "Message": error.message}, "RequestId": request_id});
            members(&mut out, &error);
            out.push_str("</ErrorResponse>");
        }
    }
    out
}

fn s3_error(result: &Result<Value, ApiError>, request_id: &str) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>");
    if let Err(error) = result {
        members(&mut out, &serde_json::json!({"Code": error.code, "Message": error.message, "RequestId": request_id}));
    }
    out.push_str("</Error>");
    out
}

fn members(out: &mut String, value: &Value) {
    for (name, member) in value.as_object().into_iter().flatten() {
        element(out, name, member);
    }
}

/// One element; a list holds `<item>` elements, an absent value is none.
fn element(out: &mut String, name: &str, value: &Value) {
    if value.is_null() {
        return;
    }
    out.push_str(&format!("<{name}>"));
    match value {
        Value::Array(items) => items.iter().for_each(|item| element(out, "item", item)),
        Value::Object(_) => members(out, value),
        Value::String(text) => out.push_str(&escape(text)),
        other => out.push_str(&other.to_string()),
    }
    out.push_str(&format!("</{name}>"));
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 has no way to write the others.
            c if c.is_control() && !matches!(c, '\n' | '\r' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A form body as a flat object, which is what the query protocol sends.
pub fn form(body: &[u8]) -> Value {
    let mut map = Map::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        map.insert(name.into_owned(), Value::from(value.into_owned()));
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_become_items_and_text_is_escaped() {
        let mut out = String::new();
        members(&mut out, &json!({"a": [{"b": "<x & \"y\">"}, {"b": 1}], "none": null, "t": true, "empty": []}));
        assert_eq!(
            out,
            "<a><item><b>&lt;x &amp; &quot;y&quot;&gt;</b></item><item><b>1</b></item></a><t>true</t><empty></empty>"
        );
    }
}
