// Browsers start no worker from a file, so the search of a page that is opened from a folder runs
// in a hidden frame instead: what a worker is to a page, messages there and back, and no more.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      this.deliver = (to, kind, data) => to.dispatchEvent(new kind("message", { data }));
      inside.postMessage = data => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      const script = frame.contentDocument.createElement("script");
      script.src = new URL(url, location.href).href;
      this.ready = new Promise(done => (script.onload = done));
      frame.contentDocument.body.append(script);
      this.inside = inside;
    }
    postMessage(data) {
      this.ready.then(() => this.deliver(this.inside, this.inside.MessageEvent, data));
    }
    terminate() {
      this.inside.frameElement.remove();
    }
  };
}
