//! As much of WebDAV as sccache and Maven speak: folders exist always, files when they are there.

use ::http::{HeaderValue, Method, Response, StatusCode, header};

use super::{Call, Service, status};
use crate::body::Body;
use crate::error::Error;
use crate::name::What;

impl Service {
    pub(super) async fn dav<B>(&self, call: &Call<'_, B>, method: &Method) -> Result<Response<Body>, Error> {
        call.caller.check_read()?;
        let path = call.request.uri().path();
        match (method.as_str(), &call.target.what) {
            ("PROPFIND", What::Folder) => Ok(found(path, None)),
            ("PROPFIND", What::Blob { key, content, .. }) => match self.cache.renew(&[call.target.id(*key, *content)]).await?[..]
            {
                [Some(len)] => Ok(found(path, Some(len))),
                _ => Err(Error::NotFound),
            },
            ("MKCOL", _) => {
                call.caller.check_write(&call.target.instance)?;
                Ok(status(StatusCode::CREATED))
            }
            ("OPTIONS", _) => {
                let mut response = status(StatusCode::OK);
                let fields = response.headers_mut();
                fields.insert("dav", HeaderValue::from_static("1"));
                let methods = "OPTIONS, GET, HEAD, PUT, DELETE, PROPFIND, MKCOL";
                fields.insert(header::ALLOW, HeaderValue::from_static(methods));
                Ok(response)
            }
            ("GET" | "HEAD", What::Folder) => Ok(status(StatusCode::OK)),
            ("DELETE", What::Folder) => Ok(status(StatusCode::NO_CONTENT)),
            _ => Ok(status(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }
}

/// What PROPFIND wants to read: a file with its length, or a folder.
fn found(path: &str, len: Option<u64>) -> Response<Body> {
    let kind = match len {
        Some(len) => format!("<D:resourcetype/><D:getcontentlength>{len}</D:getcontentlength>"),
        None => "<D:resourcetype><D:collection/></D:resourcetype>".to_owned(),
    };
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\"><D:response><D:href>{}</D:href><D:propstat><D:prop>{kind}\
         <D:getlastmodified>Thu, 01 Jan 1970 00:00:00 GMT</D:getlastmodified></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>\
         </D:response></D:multistatus>\n",
        escape(path)
    );
    let mut response = Response::new(Body::text(text));
    *response.status_mut() = StatusCode::MULTI_STATUS;
    let kind = HeaderValue::from_static("application/xml; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
