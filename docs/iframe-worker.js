/* The search runs in a worker, which browsers refuse to pages on the disk. There this class takes
   the worker's place: it runs the same script in a hidden frame. */
(() => {
  if (location.protocol !== "file:") return

  const load = (page, url) => new Promise((resolve, reject) => {
    const script = page.createElement("script")
    script.src = url
    script.onload = resolve
    script.onerror = () => reject(new Error(`cannot load ${url}`))
    page.head.append(script)
  })

  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.documentElement.append(this.frame)
      const inner = this.frame.contentWindow
      inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      inner.importScripts = async (...urls) => {
        for (const part of urls) await load(inner.document, part)
      }
      this.ready = load(inner.document, new URL(url, location.href).href)
    }

    async postMessage(data) {
      await this.ready
      const inner = this.frame.contentWindow
      inner.dispatchEvent(new inner.MessageEvent("message", { data }))
    }

    terminate() {
      this.frame.remove()
    }
  }
})()
