// The routes: POST /carts, GET /carts/:id, PUT /carts/:id/:item/:count, GET /health.
const polka = require('polka');
const { Carts } = require('./cart.js');

const carts = new Carts();
const answer = (res, status, value) => {
  res.writeHead(status, { 'Content-Type': 'application/json' });
  res.end(JSON.stringify(value));
};
const found = (res, value) => (value ? answer(res, 200, value) : answer(res, 404, { error: 'no such cart' }));

const app = polka()
  .get('/health', (_, res) => answer(res, 200, { status: 'ok', uid: process.getuid() }))
  .post('/carts', (_, res) => answer(res, 201, { id: carts.open() }))
  .get('/carts/:id', (req, res) => found(res, carts.show(req.params.id)))
  .put('/carts/:id/:item/:count', (req, res) => {
    const { id, item, count } = req.params;
    found(res, carts.put(id, Number(item), Number(count)));
  })
  .listen(3000, () => console.log('cart: listening on 3000'));

process.on('SIGTERM', () => app.server.close(() => process.exit(0)));
