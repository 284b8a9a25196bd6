// Carts in memory: what was put into them, by the cart's id.
const { nanoid } = require('nanoid');

class Carts {
  constructor() { this.all = new Map(); }
  open() {
    const id = nanoid(10);
    this.all.set(id, new Map());
    return id;
  }
  put(id, item, count) {
    const cart = this.all.get(id);
    if (!cart || !Number.isInteger(item) || !Number.isInteger(count) || count < 1) return undefined;
    cart.set(item, (cart.get(item) || 0) + count);
    return this.show(id);
  }
  show(id) {
    const cart = this.all.get(id);
    return cart && { id, items: [...cart].map(([item, count]) => ({ item, count })) };
  }
}

module.exports = { Carts };
